need losetup /dev/loop-control; loop=$(losetup -f --show -o $((start * 512)) "/dev/$disk") && undo "losetup -d $loop"; [ -n "$loop" ] && $poke write "$loop" 4096
