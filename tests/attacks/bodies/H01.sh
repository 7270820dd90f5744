fallocate -l "$(df --output=avail -B1 /var | tail -n 1)" fill && ! dd if=/dev/zero of=more bs=1M 2>/dev/null; r=$?; rm -f fill more; [ $r = 0 ]
