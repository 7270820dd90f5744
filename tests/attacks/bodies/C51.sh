f=/sys/block/$disk/queue/write_cache; need $f; mode=$(cat $f); echo "$mode" >$f
