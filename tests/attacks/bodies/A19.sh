touch /proc/1/root/etc/x && [ -e /etc/x ]
