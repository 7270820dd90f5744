$poke memory personality
