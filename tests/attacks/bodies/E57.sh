$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; evil /var; ran "$(timeout 9 systemd-run -q --pipe --wait $evil hello)"
