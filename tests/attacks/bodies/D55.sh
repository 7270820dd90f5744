setting /proc/sys/net/core/bpf_jit_harden 0
