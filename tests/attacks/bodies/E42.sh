$poke memory remap
