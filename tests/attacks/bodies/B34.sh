mkdir -p /run/b34; undo 'umount -l /run/b34'; mount --bind /usr /run/b34; mount --bind /run/b34/share /usr/lib/attacks/bodies && undo 'umount -l /usr/lib/attacks/bodies'
host test -d /usr/lib/attacks/bodies/perl5
