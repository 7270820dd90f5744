mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null; f=$(find /sys/kernel/debug -maxdepth 3 -type f -perm -u+w 2>/dev/null | head -n 1); need "${f:-none}"; : 2>&1 >>"$f"
