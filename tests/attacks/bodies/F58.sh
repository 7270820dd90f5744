everyone; f=/sys/fs/cgroup/system.slice/adamant-watch.service/memory.max; need $f; old=$(cat $f); undo 'systemctl set-property --runtime adamant-watch.service MemoryMax=16M'
timeout 9 systemctl set-property --runtime adamant-watch.service MemoryMax=8M; [ "$(cat $f)" != "$old" ]
