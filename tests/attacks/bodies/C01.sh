$poke write "/dev/$data" 4096
