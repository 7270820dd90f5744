$poke fsmount tmpfs /opt && undo 'umount -l /opt'
host sh -c 'touch /opt/x'
