perl -e 'exit(truncate("/etc/hosts", 0) ? 0 : do { print "$!\n"; 1 })'
