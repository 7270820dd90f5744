evil /dev/shm; ran "$($evil hello)"
