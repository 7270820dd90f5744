everyone; need /usr/bin/adamant-agent; setting /proc/sys/net/ipv4/ip_local_port_range '1024 60999'
perl -MSocket -e '$| = 1; socket(my $s, AF_INET, SOCK_DGRAM, 0); bind($s, sockaddr_in(7777, INADDR_ANY)) or die; print "open\n"; sleep 20' >ready &
for n in 1 2 3 4 5 6 7 8 9 10; do [ -s ready ] || sleep 1; done
[ -s ready ] && adamant-agent drift >found; cat found; ! grep -q ':7777/udp' found
