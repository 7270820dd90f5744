mkdir t; touch t/evil; $poke beneath "$PWD/t" /tmp || exit
undo 'umount -l /tmp'; umount -l /tmp; undo 'mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs /tmp'
host test -e /tmp/evil
