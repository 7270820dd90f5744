$poke memory stack
