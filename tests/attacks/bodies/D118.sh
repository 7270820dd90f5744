setting /sys/module/kernel/parameters/panic 7
