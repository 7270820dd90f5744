$poke write "/dev/$tree" 4096
