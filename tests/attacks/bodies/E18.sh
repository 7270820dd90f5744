evil /var; chmod 4755 $evil; case $(user $evil hello) in *euid=0*) ;; *) false ;; esac
