d=/run/credentials/@system; need $d; ours; undo "umount -l $d"; mount -t tmpfs tmpfs $d && touch $d/b51
