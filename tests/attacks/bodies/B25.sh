ours
undo 'umount -l /run/b25'; mkdir -p /run/b25; mount -t tmpfs tmpfs /run/b25 || exit; mkdir /run/b25/old
mount --make-private /; mount --make-private /run; mount --make-private /run/b25; undo 'mount --make-shared /; mount --make-shared /run'
$poke pivot /run/b25 /run/b25/old
