service_with_mounts
mkdir -p /run/b43; undo 'rmdir /run/b43'; nsenter -t "$pid" -m -- sh -c "mount --make-rprivate /; mount -t tmpfs tmpfs /run/b43 && mkdir -p /run/b43/old /run/b43/etc && echo evil >/run/b43/etc/hosts && mkdir -p /run/b43/usr && mount --rbind /usr /run/b43/usr && $poke pivot /run/b43 /run/b43/old"
grep -q evil "/proc/$pid/root/etc/hosts"
