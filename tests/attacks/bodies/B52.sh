ours; undo "$poke setattr /dev 4 0"; $poke setattr /dev 0 4 && ! head -c 1 /dev/zero >/dev/null
