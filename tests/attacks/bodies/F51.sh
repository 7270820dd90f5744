everyone; lives; f=/sys/fs/cgroup/init.scope/memory.max; need $f; undo 'systemctl set-property --runtime init.scope MemoryMax=infinity'
timeout 9 systemctl set-property --runtime init.scope MemoryMax=100M; [ "$(cat $f)" != max ]
