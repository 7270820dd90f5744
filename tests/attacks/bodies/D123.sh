setting /proc/sys/kernel/hung_task_timeout_secs 0
