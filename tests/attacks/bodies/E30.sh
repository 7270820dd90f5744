$poke memory anonymous
