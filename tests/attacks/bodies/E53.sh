$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; printf '\270*\000\000\000\303' >code; $poke memory map-later code
