undo 'mount -o remount,rw /var'; mount -o remount,ro /var && ! touch /var/x 2>/dev/null
