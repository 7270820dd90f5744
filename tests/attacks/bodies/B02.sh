echo 'evil::0:0::/:/bin/sh' >passwd; mount --bind passwd /etc/passwd && undo 'umount -l /etc/passwd'
host grep -q '^evil' /etc/passwd
