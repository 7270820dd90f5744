unit=$(for u in systemd-logind systemd-resolved systemd-networkd systemd-timesyncd; do systemctl is-active -q $u && echo $u; done | head -n 1)
[ -n "$unit" ] || skip 'no such service'
pid=$(systemctl show -P MainPID "$unit"); echo evil >b12
systemctl bind "$unit" "$PWD/b12" /etc/hosts && undo 'nsenter -t '"$pid"' -m -- umount -l /etc/hosts'
grep -q evil "/proc/$pid/root/etc/hosts"
