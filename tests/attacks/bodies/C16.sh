other_slot; at=$(cat "/sys/class/block/$other/start"); blkdiscard -f -o $((at * 512)) -l 1048576 "/dev/$disk"
