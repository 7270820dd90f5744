undo "grep -q ' /var/log ' /proc/self/mountinfo || mount -o nosuid,nodev,noexec /dev/$logs /var/log"; undo 'mount --make-shared /var'
unshare -m --propagation unchanged sh -c "nsenter -t 1 -m -- $poke setattr /var 0 0 0x80000; umount -l /var/log"
! host grep -q ' /var/log ' /proc/self/mountinfo
