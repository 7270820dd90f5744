$poke ioctl "/dev/$disk" 0x411870dd @00
