g=/sys/fs/cgroup/init.scope; need $g/memory.max; undo "echo max >$g/memory.max"; echo 1M >$g/memory.max && [ "$(cat $g/memory.max)" -le 1048576 ]
