g=/sys/fs/cgroup/init.scope; need $g/cgroup.freeze; undo "echo 0 >$g/cgroup.freeze"; echo 1 >$g/cgroup.freeze; sleep 0.5; grep -q 'frozen 1' $g/cgroup.events
