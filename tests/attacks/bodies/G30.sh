need /var/.adamant/reserve/0; undo 'truncate -s 8192 /var/.adamant/reserve/0'
: >/var/.adamant/reserve/0 || truncate -s 0 /var/.adamant/reserve/0
