undo 'rm -f /dev/c08'; mknod /dev/c08 b $(tr : ' ' <"/sys/class/block/$disk/dev") && $poke write /dev/c08 $((start * 512 + 4096))
