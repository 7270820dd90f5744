evil /run; ran "$($evil hello)"
