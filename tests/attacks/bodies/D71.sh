$poke bpf xdp
