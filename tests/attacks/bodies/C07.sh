$poke uring "/dev/$disk" $((start * 512 + 4096))
