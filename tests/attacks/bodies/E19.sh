cp $here/evil.so . && case $(LD_PRELOAD=$PWD/evil.so /usr/bin/true) in *'evil library'*) ;; *) false ;; esac
