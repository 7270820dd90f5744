$poke memory private /usr/bin/dash
