undo "$poke dm remove c49"; $poke dm create c49 16384 linear "/dev/$data 0"
