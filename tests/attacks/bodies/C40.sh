need /dev/ng0n1; $poke uring-nvme /dev/ng0n1 100
