$poke setattr /var 0xe 0; undo "$poke setattr /var 0 0xe"; evil /var; chmod 4755 $evil
case $(user $evil hello) in *euid=0*) ;; *) false ;; esac
