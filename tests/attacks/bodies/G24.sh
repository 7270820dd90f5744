d=/var/.adamant; need $d
undo "chmod 0700 $d"; chmod 0777 $d && [ "$(stat -c %a $d)" = 777 ]
