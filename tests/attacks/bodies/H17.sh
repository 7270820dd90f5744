f=/var/.adamant/machine-id; need $f; cp $f was; undo "cat was >$f"; echo 0123456789abcdef0123456789abcdef >$f; grep -q 0123456789abcdef $f
