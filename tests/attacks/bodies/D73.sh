$poke bpf map
