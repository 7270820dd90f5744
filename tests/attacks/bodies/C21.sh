other_slot; $poke write "/dev/$other" 4096
