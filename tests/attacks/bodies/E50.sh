$poke memory writev /usr/bin/dash
