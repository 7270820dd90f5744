cp $here/evil.erofs . && mkdir -p /run/c45; undo 'umount -l /run/c45; rmdir /run/c45'; said=$($poke fsmount erofs /run/c45 "source=$PWD/evil.erofs" ro 2>&1) || { echo "$said"; case $said in *'Block device required'*) skip 'no EROFS from files' ;; esac; exit 1; }
ran "$(/run/c45/program)"
