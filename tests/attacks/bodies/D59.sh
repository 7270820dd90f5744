$poke clock settime 1000000000
