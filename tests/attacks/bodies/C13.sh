n=$(cat "/sys/class/block/$esp/partition"); s=$(($(cat "/sys/class/block/$esp/start") * 512)); l=$(($(cat "/sys/class/block/$esp/size") * 512))
awk '{ print $3 }' /proc/self/mountinfo | grep -qx "$(cat "/sys/class/block/$esp/dev")" && skip 'the ESP is mounted'
$poke blkpg "/dev/$disk" delete "$n" && { $poke blkpg "/dev/$disk" add "$n" "$s" "$l"; true; }
