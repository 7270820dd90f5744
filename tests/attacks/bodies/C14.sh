$poke blkpg "/dev/$disk" add 60 $((start * 512)) 1048576 && { $poke blkpg "/dev/$disk" delete 60; true; }
