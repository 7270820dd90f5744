ran "$($poke tmpfile "$PWD" $poke)"
