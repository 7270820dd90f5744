$poke uring /usr/bin/less 0 evil
