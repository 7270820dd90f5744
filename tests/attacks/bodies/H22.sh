f=/var/.adamant/machine-id; need $f; cp $f was; undo "cat was >$f"; echo 0123456789abcdef0123456789abcdef >/var/h22; undo 'rm -f /var/h22'; mv -f /var/h22 $f || { rm -f $f; [ ! -e $f ]; }
