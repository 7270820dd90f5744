$poke bpf tracepoint
