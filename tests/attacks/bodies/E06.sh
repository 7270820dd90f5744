evil /dev; ran "$($evil hello)"
