echo evil >hosts; unshare -m -- nsenter -t 1 -m -- mount --bind "$PWD/hosts" /etc/hosts && undo 'umount -l /etc/hosts'
host grep -q evil /etc/hosts
