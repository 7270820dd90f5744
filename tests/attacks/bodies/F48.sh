everyone; need /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/f48; sleep 60 & p=$!; undo "kill $p; sleep 1; rmdir /sys/fs/cgroup/f48"
timeout 9 systemd-run -q --wait -p StandardOutput=file:/sys/fs/cgroup/f48/cgroup.procs /usr/bin/echo $p; grep -q f48 /proc/$p/cgroup
