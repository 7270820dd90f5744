touch /usr/x && [ -e /usr/x ]
