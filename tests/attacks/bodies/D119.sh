setting /sys/module/kernel/parameters/panic_on_warn 1
