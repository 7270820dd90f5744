d=/run/credentials/@system; need $d; ours; undo "mount -o remount,bind,ro $d"
mount -o remount,bind,rw $d && undo "rm -f $d/b48" && touch $d/b48
