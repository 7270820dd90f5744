g=/sys/fs/cgroup/evil-f33; mkdir $g; undo "echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs; rmdir $g"; echo 1 >$g/cgroup.procs && grep -q evil-f33 /proc/1/cgroup
