d=/var/lib/systemd/linger; need $d
undo "rm -f $d/nobody"; touch $d/nobody && host test -e $d/nobody
