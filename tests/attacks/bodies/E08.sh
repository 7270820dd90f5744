$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp /usr/bin/echo echo; ran "$(/lib64/ld-linux-x86-64.so.2 ./echo 'evil program ran')"
