everyone; f=/sys/fs/cgroup/system.slice/cpu.max; need $f; undo "echo max >$f"; echo '90000 100000' >$f
