d=/run/credentials/@system; need $d; ours; umount -l $d && ! mountpoint -q $d
