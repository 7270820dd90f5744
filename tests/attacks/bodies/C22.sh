$poke write "/dev/$var" 0
