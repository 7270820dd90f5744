$poke memory mprotect
