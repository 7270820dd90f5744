need /proc/sys/kernel/yama/ptrace_scope; [ "$(cat /proc/sys/kernel/yama/ptrace_scope)" != 0 ] || skip 'is 0'; setting /proc/sys/kernel/yama/ptrace_scope 0
