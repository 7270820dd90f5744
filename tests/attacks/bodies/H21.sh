f=/sys/class/block/$disk/device/delete; need "$f"; exec 3>"$f"
