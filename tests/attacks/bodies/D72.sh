$poke bpf cgroup
