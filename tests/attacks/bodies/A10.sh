$poke exchange /usr/bin/less /usr/bin/dash
