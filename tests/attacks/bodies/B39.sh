: >null; chmod 666 null; mount --bind null /dev/null && undo 'umount -l /dev/null'
host test -f /dev/null
