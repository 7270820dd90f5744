pid=$(for u in systemd-logind systemd-udevd systemd-resolved systemd-networkd systemd-timesyncd; do p=$(systemctl show -P MainPID $u); [ "$p" = 0 ] || [ "$(readlink /proc/$p/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ] || echo $p; done | head -n 1)
[ -n "$pid" ] || skip 'no service has a namespace of its own'
mkdir -p /run/b43; undo 'rmdir /run/b43'; nsenter -t "$pid" -m -- sh -c "mount --make-rprivate /; mount -t tmpfs tmpfs /run/b43 && mkdir -p /run/b43/old /run/b43/etc && echo evil >/run/b43/etc/hosts && mkdir -p /run/b43/usr && mount --rbind /usr /run/b43/usr && $poke pivot /run/b43 /run/b43/old"
grep -q evil "/proc/$pid/root/etc/hosts"
