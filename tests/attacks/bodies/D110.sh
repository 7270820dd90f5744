setting /proc/sys/kernel/panic_on_oops 0
