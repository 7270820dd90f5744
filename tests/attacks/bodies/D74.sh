for p in /guard/bprm_check_security /sys/fs/bpf/bprm_check_security /proc/1/root/guard/bprm_check_security; do $poke bpf pinned $p && exit 0; done; false
