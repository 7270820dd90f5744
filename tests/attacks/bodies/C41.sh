need /dev/nvme0; $poke ioctl /dev/nvme0 0x4e44
