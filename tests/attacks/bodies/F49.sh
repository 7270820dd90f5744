everyone; need /sys/fs/cgroup/cgroup.procs /usr/lib/systemd/systemd; mkdir /sys/fs/cgroup/f49; sleep 60 & p=$!; undo "kill $p; sleep 1; rmdir /sys/fs/cgroup/f49"
mkdir -p c/systemd/user r; chmod 700 r; printf '[Service]\nType=oneshot\nStandardOutput=file:/sys/fs/cgroup/f49/cgroup.procs\nExecStart=/usr/bin/echo %s\n' $p >c/systemd/user/f49.service
XDG_CONFIG_HOME=$PWD/c XDG_RUNTIME_DIR=$PWD/r timeout 9 /usr/lib/systemd/systemd --user --unit=f49.service; grep -q f49 /proc/$p/cgroup
