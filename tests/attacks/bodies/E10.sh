mkdir -p /run/e10; undo 'umount -l /run/e10; rmdir /run/e10'; mount -t tmpfs -o exec tmpfs /run/e10; evil /run/e10; ran "$($evil hello)"
