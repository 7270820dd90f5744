$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp /usr/bin/echo echo; ran "$(./echo evil program ran)"
