cp -a /run/systemd copy 2>/dev/null; mount -t tmpfs tmpfs /run/systemd && undo 'umount -l /run/systemd'
host sh -c 'mkdir -p /run/systemd/system && touch /run/systemd/system/x.service'
