case $disk in sd*) ;; *) skip 'not a SCSI disk' ;; esac; $poke scsi "/dev/$data" 8
