$poke memory heap
