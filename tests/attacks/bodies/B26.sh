undo 'umount -l /opt; mount --make-shared /'
unshare -m --propagation unchanged sh -c 'nsenter -t 1 -m -- mount --make-slave /; mount -t tmpfs tmpfs /opt'
host grep -q ' /opt ' /proc/self/mountinfo
