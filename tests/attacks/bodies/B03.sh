mkdir ssh; touch ssh/evil; mount --bind ssh /etc/ssh && undo 'umount -l /etc/ssh'
host test -e /etc/ssh/evil
