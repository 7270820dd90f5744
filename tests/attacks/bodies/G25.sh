d=/var/.adamant; need $d
undo "chown 0:0 $d"; chown 65534:65534 $d && [ "$(stat -c %u $d)" = 65534 ]
