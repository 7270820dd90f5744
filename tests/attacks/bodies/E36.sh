$poke memory grow-stack
