need /dev/nbd0; $poke ioctl /dev/nbd0 0xab02 1048576
