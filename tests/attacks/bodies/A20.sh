perl -e 'open(F, "+<", "/usr/bin/less") or do { print "$!\n"; exit 1 }; syscall(9, 0, 4096, 3, 1, fileno(F), 0) > 0 or exit 1'
