$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp $here/evil.so . && case $(LD_PRELOAD=$PWD/evil.so /usr/bin/true) in *'evil library'*) ;; *) false ;; esac
