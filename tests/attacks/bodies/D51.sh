setting /proc/sys/kernel/randomize_va_space 0
