$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp $here/evil.so . && case $(perl -e 'require DynaLoader; DynaLoader::dl_load_file("./evil.so", 0)') in *'evil library'*) ;; *) false ;; esac
