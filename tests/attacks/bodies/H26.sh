everyone; need /usr/bin/adamant-agent; ulimit -n 20000 || skip 'no limit of open files for this attack'
perl -MSocket -e '$| = 1; my @all; for my $port (20000 .. 29000) { socket(my $s, AF_INET, SOCK_DGRAM, 0) or last; bind($s, sockaddr_in($port, INADDR_LOOPBACK)) or last; push @all, $s }
  socket(my $s, AF_INET, SOCK_DGRAM, 0); bind($s, sockaddr_in(777, INADDR_ANY)) or die; print scalar(@all), "\n"; sleep 20' >ready &
for n in 1 2 3 4 5 6 7 8 9 10; do [ -s ready ] || sleep 1; done
[ -s ready ] || skip 'too slow for this attack'
adamant-agent drift >found; cat ready; head -n 20 found; wc -c /proc/net/udp; [ -s found ] && ! grep -q ':777/udp' found
