mountpoint -q /run/lock || skip '/run/lock is no mount point'; ours
undo 'mv -T /run/b55 /run/lock'
unshare -m sh -c 'umount -l /run/lock && mv -T /run/lock /run/b55'; ! host mountpoint -q /run/lock
