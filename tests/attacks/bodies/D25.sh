perl -e 'exit(syscall(173, 128, 1, 1) == 0 || syscall(172, 3) == 0 ? 0 : do { print "$!\n"; 1 })'
