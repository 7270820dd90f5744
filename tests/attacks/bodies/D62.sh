$poke clock adjtime 1000000000
