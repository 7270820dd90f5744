need /dev/nvme0n1; mkdir -p /run/c28; undo 'umount -l /run/c28; rmdir /run/c28'; mount -o ro,noload,exec,suid /dev/nvme0n1 /run/c28; ran "$(/run/c28/program)"
