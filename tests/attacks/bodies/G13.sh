$poke write "/dev/$disk" $((($(cat "/sys/class/block/$disk/size") - 8) * 512))
