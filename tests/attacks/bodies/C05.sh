$poke uring "/dev/$data" 4096
