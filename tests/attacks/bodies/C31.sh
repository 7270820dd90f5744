need /dev/loop-control; cp $here/evil.img .; loop=$(losetup -f); [ -b "$loop" ] || skip 'no free loop device'; undo "losetup -d $loop"; $poke loop "$loop" "$PWD/evil.img"
