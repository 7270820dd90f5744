setting /proc/sys/kernel/warn_limit 1
