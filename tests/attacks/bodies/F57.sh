everyone; lives; need /sys/fs/cgroup/system.slice/cgroup.freeze
(sleep 15; systemctl thaw system.slice) & timeout 9 busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager FreezeUnit s system.slice; [ "$(cat /sys/fs/cgroup/system.slice/cgroup.freeze)" = 1 ]
