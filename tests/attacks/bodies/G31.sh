need /var/lib/adamant; undo '[ -d /var/lib/attack ] && rm /var/lib/adamant && mv /var/lib/attack /var/lib/adamant'
mv /var/lib/adamant /var/lib/attack && : >/var/lib/adamant
