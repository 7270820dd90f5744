d=/var/.adamant; need $d
undo "chattr -i $d"; chattr +i $d && lsattr -d $d | grep -q -- "^[^ ]*i"
