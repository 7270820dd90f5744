setting /proc/sys/kernel/oops_limit 1
