g=/sys/fs/cgroup/init.scope; need $g/cgroup.kill; echo 1 >$g/cgroup.kill; sleep 0.5; [ ! -d /proc/1 ]
