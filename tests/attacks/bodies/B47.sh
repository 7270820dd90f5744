[ ! -e /run/initramfs ] || skip 'there is /run/initramfs already'; undo 'rm -f /run/initramfs'
ln -s /tmp /run/initramfs && [ -h /run/initramfs ]
