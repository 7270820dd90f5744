umount -l /var/log && undo "mount -o nosuid,nodev,noexec /dev/$logs /var/log"
! host grep -q ' /var/log ' /proc/self/mountinfo
