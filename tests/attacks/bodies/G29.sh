need /var/.adamant/reserve/0; cp /var/.adamant/reserve/0 copy; undo '[ -e /var/.adamant/reserve/0 ] || cp copy /var/.adamant/reserve/0'
rm /var/.adamant/reserve/0
