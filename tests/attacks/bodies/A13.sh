$poke handle /etc/shadow 1 evil
