$poke perf
