$poke write "/dev/$disk" $((start * 512 + 4096))
