undo "blockdev --setro /dev/$data"; blockdev --setrw "/dev/$data" && $poke write "/dev/$data" 4096
