$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; ran "$($poke tmpfile "$PWD" $poke)"
