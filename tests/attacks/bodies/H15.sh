need /dev/nvme0n1; mount -o ro,noload /dev/nvme0n1 /var/log && undo 'umount -l /var/log'; host test -e /var/log/program
