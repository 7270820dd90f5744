need /var/.adamant; undo 'rmdir /var/.adamant; mv /var/h23 /var/.adamant'; mv /var/.adamant /var/h23 && mkdir /var/.adamant
