echo evil >hosts; undo 'umount -l /etc/hosts'
unshare -m --propagation shared mount --bind "$PWD/hosts" /etc/hosts
host grep -q evil /etc/hosts
