$poke memory uffd
