everyone; need /usr/lib/systemd/system/adamant-watch.service; undo 'systemctl thaw adamant-watch.service'
timeout 9 systemctl freeze adamant-watch.service; grep -q 'frozen 1' /sys/fs/cgroup/system.slice/adamant-watch.service/cgroup.events
