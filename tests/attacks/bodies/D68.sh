$poke bpf kill
