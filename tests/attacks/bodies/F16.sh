pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; echo 1 >"/sys/fs/cgroup$(cut -d : -f 3 "/proc/$pid/cgroup")/cgroup.kill" || exit; gone "$pid"
