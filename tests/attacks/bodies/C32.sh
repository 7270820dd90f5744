case $disk in sd*) ;; *) skip 'not a SCSI disk' ;; esac; $poke scsi "/dev/$disk" $((start + 8))
