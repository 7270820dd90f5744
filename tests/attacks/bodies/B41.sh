mount -t sysfs sysfs /opt && undo 'umount -l /opt'; host test -d /opt/kernel
