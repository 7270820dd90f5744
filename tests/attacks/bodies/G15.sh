[ "$(cat /sys/kernel/kexec_loaded)" = 1 ]
