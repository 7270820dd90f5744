$poke bpf kprobe
