$poke reconfigure / rw && touch /etc/x && [ -e /etc/x ]
