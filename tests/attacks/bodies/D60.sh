$poke clock settimeofday 1000000000
