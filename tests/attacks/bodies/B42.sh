service_with_mounts
echo evil >/run/b42; undo 'rm -f /run/b42'; nsenter -t "$pid" -m -- mount --make-rshared /; nsenter -t "$pid" -m -- unshare -m --propagation unchanged mount --bind /run/b42 /etc/hosts && undo 'nsenter -t '"$pid"' -m -- umount -l /etc/hosts'
grep -q evil "/proc/$pid/root/etc/hosts"
