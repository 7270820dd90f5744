other_slot; blkdiscard -f -z -o 0 -l 4096 "/dev/$other"
