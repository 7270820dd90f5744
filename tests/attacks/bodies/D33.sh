$poke kexec
