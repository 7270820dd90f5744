$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; mkdir -p c/bin; cp $poke c/bin/evil; ran "$(unshare -mpiunC --fork chroot "$PWD/c" /bin/evil hello)"
