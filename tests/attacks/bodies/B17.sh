$poke setattr /var 0xe 0; undo "$poke setattr /var 0 0xe"; evil /var; ran "$($evil hello)"
