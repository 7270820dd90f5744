ran "$($poke memfd $poke)"
