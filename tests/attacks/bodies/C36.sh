bsg=$(ls "/sys/class/block/$disk/device/bsg" 2>/dev/null | head -n 1); need "/dev/bsg/${bsg:-bsg}"; $poke bsg "/dev/bsg/$bsg" $((start + 8))
