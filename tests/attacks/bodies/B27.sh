undo 'umount -l /opt; mount --make-shared /'
unshare -m --propagation unchanged sh -c "nsenter -t 1 -m -- $poke setattr / 0 0 0x80000; perl -e '\$s = q($PWD); \$t = q(/opt); \$f = q(none); syscall(165, \$s, \$t, \$f, 4096, 0)'"
host grep -q ' /opt ' /proc/self/mountinfo
