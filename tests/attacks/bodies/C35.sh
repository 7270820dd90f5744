sg=$(ls "/sys/class/block/$disk/device/scsi_generic" 2>/dev/null | head -n 1); need "/dev/${sg:-sg}"; $poke scsi "/dev/$sg" $((start + 8)) write
