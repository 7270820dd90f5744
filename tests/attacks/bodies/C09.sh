flock "/dev/$disk" $poke write /proc/self/fd/3 $((start * 512 + 4096))
