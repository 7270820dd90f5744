mkdir -p /run/b38; undo 'umount -l /run/b38; rmdir /run/b38'; mount -o exec,suid,dev "/dev/$var" /run/b38 || exit; evil /var; ran "$(/run/b38/evil-program hello)"
