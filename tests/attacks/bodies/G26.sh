f=/var/.adamant/machine-id; need $f; mode=$(stat -c %a $f); undo "chmod $mode $f"; chmod 0666 $f && [ "$(stat -c %a $f)" = 666 ]
