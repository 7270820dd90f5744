echo 'attacks plug' >/dev/console || skip 'nobody plugs a disk in for this one'; for t in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1; echo '- - -' >/sys/class/scsi_host/host0/scan 2>/dev/null; twin=$(ls /sys/class/block | grep '^sd[a-z]$' | grep -vx "$disk" | head -n 1); [ -n "$twin" ] && [ -b "/dev/${twin}7" ] && break; done
[ -n "$twin" ] || skip 'no disk appeared'; udevadm settle -t 5; undo 'umount -l /run/g17; rmdir /run/g17'; mkdir -p /run/g17
mount -t vfat "/dev/${twin}1" /run/g17 && [ -d /run/g17/EFI ]
