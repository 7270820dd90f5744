$poke memory memfd-secret
