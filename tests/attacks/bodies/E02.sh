evil /var/log; ran "$($evil hello)"
