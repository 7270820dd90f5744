echo evil >hosts; $poke clone "$PWD/hosts" /etc/hosts && undo 'umount -l /etc/hosts'
host grep -q evil /etc/hosts
