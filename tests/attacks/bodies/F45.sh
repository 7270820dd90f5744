everyone; f=/sys/fs/cgroup/cgroup.subtree_control; need $f; grep -qw pids $f || skip 'no controller pids'; undo "echo +pids >$f"; echo -pids >$f
