setting /proc/sys/kernel/panic_on_warn 1
