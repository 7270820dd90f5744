evil /tmp; ran "$($evil hello)"
