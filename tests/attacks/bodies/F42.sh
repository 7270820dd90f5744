everyone; setting /sys/fs/cgroup/init.scope/memory.high 1073741824
