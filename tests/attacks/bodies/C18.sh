$poke write "/dev/$disk" 0
