setting /proc/sys/kernel/sched_rt_runtime_us -1
