everyone; ours; undo 'mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup'
umount -l /sys/fs/cgroup; ! mountpoint -q /sys/fs/cgroup
