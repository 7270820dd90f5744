pid=$(for u in systemd-logind systemd-udevd systemd-resolved systemd-networkd systemd-timesyncd; do p=$(systemctl show -P MainPID $u); [ "$p" = 0 ] || [ "$(readlink /proc/$p/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ] || echo $p; done | head -n 1)
[ -n "$pid" ] || skip 'no service has a namespace of its own'
echo evil >/run/b42; undo 'rm -f /run/b42'; nsenter -t "$pid" -m -- mount --make-rshared /; nsenter -t "$pid" -m -- unshare -m --propagation unchanged mount --bind /run/b42 /etc/hosts && undo 'nsenter -t '"$pid"' -m -- umount -l /etc/hosts'
grep -q evil "/proc/$pid/root/etc/hosts"
