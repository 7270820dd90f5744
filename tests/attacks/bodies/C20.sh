$poke write "/dev/$esp" 0
