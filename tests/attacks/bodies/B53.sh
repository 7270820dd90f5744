ours; undo "$poke setattr / 8 0"; $poke setattr / 0 8
