need /dev/ng0n1; $poke nvme /dev/ng0n1 100 io64
