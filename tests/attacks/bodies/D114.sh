setting /proc/sys/kernel/hung_task_panic 1
