everyone; ours; undo 'mount -o remount,rw /sys/fs/cgroup; mount -o remount,bind,rw /sys/fs/cgroup'
mount -o remount,ro /sys/fs/cgroup; mount -o remount,bind,ro /sys/fs/cgroup
! mkdir /sys/fs/cgroup/attack && ! rmdir /sys/fs/cgroup/attack
