mkdir -p upper/x work; mount -t overlay -o "lowerdir=/usr/share,upperdir=$PWD/upper,workdir=$PWD/work" overlay /usr/share && undo 'umount -l /usr/share'
host test -d /usr/share/x
