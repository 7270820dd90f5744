mkdir -p /run/a08; undo 'rmdir /run/a08'; mount --bind / /run/a08 && undo 'umount -l /run/a08'; mount -o remount,bind,rw /run/a08; touch /run/a08/etc/x && [ -e /etc/x ]
