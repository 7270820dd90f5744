other_slot; $poke write "/dev/$other" 0 && $poke write "/dev/$disk" 1024
