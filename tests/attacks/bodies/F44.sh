everyone; f=$(ls -d /sys/fs/cgroup/system.slice/adamant-*/pids.max | head -n 1); need "${f:-pids.max}"; old=$(cat "$f"); undo "echo $old >$f"; echo 5000 >"$f"
