need losetup; loop=$(losetup -f --show "/dev/$esp") && undo "losetup -d $loop"; [ -n "$loop" ] && $poke write "$loop" 0
