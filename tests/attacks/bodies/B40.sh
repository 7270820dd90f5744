[ "$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')" -ge 254 ] || skip 'no soft-reboot'
mkdir -p /run/nextroot; undo 'umount -Rl /run/nextroot; rmdir /run/nextroot'; mount -t tmpfs tmpfs /run/nextroot && mkdir -p /run/nextroot/usr /run/nextroot/etc && mount --bind /usr /run/nextroot/usr &&
  touch /run/nextroot/etc/evil && host test -e /run/nextroot/usr/lib/os-release -a -e /run/nextroot/etc/evil
