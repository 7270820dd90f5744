d=/run/credentials/@system; need $d; ours; undo "mount -o remount,ro $d"
mount -o remount,rw $d && undo "rm -f $d/b49" && touch $d/b49
