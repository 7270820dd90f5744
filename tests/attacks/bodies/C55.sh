case $disk in sd*) ;; *) skip 'not a SCSI disk' ;; esac; $poke ioctl "/dev/$disk" 6
