setting /proc/sys/kernel/unprivileged_bpf_disabled 0
