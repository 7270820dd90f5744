$poke uring-path unlink /usr/bin/less
