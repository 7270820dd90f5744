setting /proc/sys/kernel/kptr_restrict 0
