$poke write "/dev/dm-${root#*:}" 4096
