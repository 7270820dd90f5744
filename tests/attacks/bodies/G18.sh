twin=$(ls /sys/class/block | grep '^sd[a-z]$' | grep -vx "$disk" | head -n 1); [ -n "$twin" ] || skip 'no disk appeared'; $poke write "/dev/$twin" $((start * 512))
