need /dev/nvme0n1; mkdir -p /run/c27; undo "umount -l /run/c27; rmdir /run/c27; $poke dm remove c27; rm -f /dev/c27"
$poke dm create c27 16384 verity "1 /dev/nvme0n1 /dev/nvme0n1 4096 4096 2048 2049 sha256 $(cat $here/evil.hash) 00" || exit
for f in /sys/class/block/dm-*/dm/name; do grep -qx c27 "$f" && mknod /dev/c27 b $(tr : ' ' <"${f%/dm/name}/dev"); done
mount -o ro,noload /dev/c27 /run/c27 && ran "$(/run/c27/program)"
