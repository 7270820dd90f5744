mountpoint -q /run/lock || skip '/run/lock is no mount point'; ours
undo 'mkdir -p /run/lock; mountpoint -q /run/lock || mount -t tmpfs -o mode=1777 tmpfs /run/lock'
unshare -m sh -c 'umount -l /run/lock && rmdir /run/lock'; ! host mountpoint -q /run/lock
