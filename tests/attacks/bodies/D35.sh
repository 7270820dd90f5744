setting /proc/sys/kernel/kexec_load_disabled 0
