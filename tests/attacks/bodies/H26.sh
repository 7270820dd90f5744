everyone; need /usr/bin/adamant-agent; ulimit -n 20000 || skip 'no limit of open files for this attack'
perl -MSocket -e 'my @all; for (1 .. 12000) { socket(my $s, AF_INET, SOCK_DGRAM, 0) or last; bind($s, sockaddr_in(0, INADDR_LOOPBACK)) or last; push @all, $s }
  socket(my $s, AF_INET, SOCK_DGRAM, 0); bind($s, sockaddr_in(777, INADDR_ANY)) or die; print scalar(@all), "\n"; $| = 1; sleep 15' &
sleep 5; adamant-agent drift >found; head -n 20 found; [ -s found ] && ! grep -q ':777/udp' found
