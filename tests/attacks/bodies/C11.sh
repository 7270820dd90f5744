undo "$poke dm remove c11"; $poke dm create c11 1024 linear "/dev/$disk $((start + 8))" && dev=$(readlink -f /sys/class/block/dm-*/dm/name | while read -r f; do grep -qx c11 "$f" && basename "${f%/dm/name}"; done) && {
  undo 'rm -f /dev/c11'; mknod /dev/c11 b $(tr : ' ' <"/sys/class/block/$dev/dev"); $poke write /dev/c11 0; }
