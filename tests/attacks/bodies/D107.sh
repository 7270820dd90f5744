absent dummy; undo 'rmmod dummy; rm -f /run/evil.ko'; module dummy; ln -s "$ko" /run/evil.ko; perl -e 'socket(S, 2, 2, 0); $r = pack("a16 x24", "/run/evil.ko"); ioctl(S, 0x8933, $r)'; became dummy
