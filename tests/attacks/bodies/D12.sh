setting /proc/sys/kernel/core_pattern /run/core
