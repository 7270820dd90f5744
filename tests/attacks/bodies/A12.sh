$poke ioctl /etc/passwd 0x40086602 @00000000
