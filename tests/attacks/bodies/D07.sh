setting /proc/sys/kernel/modules_disabled 0
