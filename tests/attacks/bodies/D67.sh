$poke bpf maps
