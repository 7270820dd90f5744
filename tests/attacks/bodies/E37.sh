$poke memory memfd
