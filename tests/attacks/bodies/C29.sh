need /dev/nvme0n1; mkdir -p /run/c29; undo 'umount -l /run/c29; rmdir /run/c29'; mount -o ro,noload,noexec /dev/nvme0n1 /run/c29 && [ -e /run/c29/program ]
