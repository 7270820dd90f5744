$poke bpf links
