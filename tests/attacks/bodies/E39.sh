$poke memory shm
