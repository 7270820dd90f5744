$poke memory fork /usr/bin/dash
