need tune2fs; tune2fs -L evil "/dev/$logs" >/dev/null 2>&1 && undo "tune2fs -L logs /dev/$logs"; tune2fs -l "/dev/$logs" | grep -q 'volume name:.*evil'
