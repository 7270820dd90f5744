service_with_mounts
echo evil >/run/b11; undo 'rm -f /run/b11'; nsenter -t "$pid" -m -- mount --bind /run/b11 /etc/hosts && undo 'nsenter -t '"$pid"' -m -- umount -l /etc/hosts'
grep -q evil "/proc/$pid/root/etc/hosts"
