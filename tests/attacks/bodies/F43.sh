everyone; setting /sys/fs/cgroup/system.slice/memory.high 4294967296
