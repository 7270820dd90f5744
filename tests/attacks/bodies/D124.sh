absent dummy; modprobe -n -q dummy || skip 'no module dummy'
undo 'rmmod dummy'
perl -MSocket -e 'socket(S, AF_INET, SOCK_DGRAM, 0) or die; my $name = pack("a16x16", "dummy"); ioctl(S, 0x8913, $name); print "$!\n"'
became dummy
