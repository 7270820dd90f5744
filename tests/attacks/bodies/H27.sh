everyone; need /usr/bin/adamant-agent; setting /proc/sys/net/ipv4/ip_local_port_range '1024 60999'
perl -MSocket -e 'socket(my $s, AF_INET, SOCK_DGRAM, 0); bind($s, sockaddr_in(7777, INADDR_ANY)) or die; sleep 9' &
sleep 1; adamant-agent drift >found; [ -s found ] && ! grep -q ':7777/udp' found
