evil /var; ran "$($evil hello)"
