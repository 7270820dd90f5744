$poke bpf programs
