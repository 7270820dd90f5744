$poke memory shared
