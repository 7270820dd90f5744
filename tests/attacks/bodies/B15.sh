mount -t proc proc /proc && undo 'umount -l /proc'
[ "$(host awk '$5 == "/proc"' /proc/self/mountinfo | wc -l)" -gt 1 ]
