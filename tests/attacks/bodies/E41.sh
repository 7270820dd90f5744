$poke memory brk
