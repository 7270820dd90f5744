$poke memory ptrace /usr/bin/dash
