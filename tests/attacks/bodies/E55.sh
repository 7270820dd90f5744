undo "umount -l $PWD/c/usr"; $poke setattr /var 8 0; undo "$poke setattr /var 0 8"; mkdir -p c/usr c/lib64 && mount --bind /usr c/usr 2>/dev/null; cp /lib64/ld-linux-x86-64.so.2 c/lib64/; ln -s usr/lib c/lib; [ -e c/usr/bin ] || unshare -m true
ran "$(unshare -m sh -c "mount --bind /usr '$PWD/c/usr'; exec chroot '$PWD/c' /usr/bin/echo evil program ran")"
