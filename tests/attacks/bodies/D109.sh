setting /proc/sys/kernel/panic 77
