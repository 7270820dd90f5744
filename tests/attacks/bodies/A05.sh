mount -o remount,rw / && touch /etc/x && [ -e /etc/x ]
