i=0; while [ $i -lt 700 ]; do true 2>/dev/null >/proc/sys/kernel/modules_disabled; i=$((i + 1)); done; true
