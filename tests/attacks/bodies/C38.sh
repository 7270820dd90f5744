need /dev/nvme0n1; $poke nvme /dev/nvme0n1 100 io64
