setting /proc/sys/kernel/sysrq 1
