$poke setattr /var 0xe 0; undo "$poke setattr /var 0 0xe"; undo 'rm -f /var/b19'
mknod /var/b19 b $(tr : ' ' <"/sys/class/block/$disk/dev") && $poke write /var/b19 $((start * 512))
