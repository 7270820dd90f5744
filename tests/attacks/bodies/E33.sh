$poke memory pkey
