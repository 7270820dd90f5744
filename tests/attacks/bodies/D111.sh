setting /proc/sys/vm/panic_on_oom 1
