# Class F: the processes that keep the machine as it is: PID 1 and the agent.

### F01 lockdown: attach to PID 1
# who refuses it: kernel.yama.ptrace_scope; guard, ptrace_access_check
everyone
$poke trace 1

### F02 lockdown: seize PID 1
# who refuses it: kernel.yama.ptrace_scope; guard, ptrace_access_check
everyone
$poke trace 1 seize

### F03 lockdown: write to PID 1's memory with process_vm_writev
# who refuses it: kernel.yama.ptrace_scope; guard, ptrace_access_check
everyone
$poke vm-write 1

### F04 lockdown: write to PID 1's memory through /proc/1/mem
# who refuses it: kernel.yama.ptrace_scope; guard, file_open and ptrace_access_check
everyone
$poke mem-write 1

### F05 lockdown: take a file descriptor of PID 1's
# who refuses it: kernel.yama.ptrace_scope; guard, ptrace_access_check
everyone
$poke steal 1 1

### F06 lockdown: attach to another service
# who refuses it: kernel.yama.ptrace_scope; guard, ptrace_access_check
everyone
pid=$(systemctl show -P MainPID systemd-journald); $poke trace "$pid"

### F07 lockdown: write to another service's memory
# who refuses it: kernel.yama.ptrace_scope; guard, ptrace_access_check
everyone
pid=$(systemctl show -P MainPID systemd-journald); $poke vm-write "$pid"

### F08 verity: stop PID 1 with SIGSTOP
# who refuses it: the kernel
everyone
kill -STOP 1; sleep 0.2; grep -q '^State:.T' /proc/1/status

### F09 verity: kill PID 1 with SIGKILL
# who refuses it: the kernel
everyone
kill -KILL 1; sleep 0.2; [ ! -d /proc/1 ]

### F11 guard: a process says that it is the agent, with PR_SET_MM_EXE_FILE
# who refuses it: guard, task_prctl
# perl started by ld.so has ld.so as its program file. Once nothing of that file is mapped, its data copied to memory, perl may name any program of the image.
cat >evil.pl <<'END'
my (@gone, @kept); open my $maps, "<", "/proc/self/maps" or exit 1;
for (<$maps>) { next unless m{^(\w+)-(\w+) (\S+) .*/ld-linux}; my $area = [hex $1, hex($2) - hex $1]; $3 =~ /x/ ? push @gone, $area : push @kept, $area }
my $program = -e "/usr/bin/adamant-agent" ? "/usr/bin/adamant-agent" : "/usr/bin/dash"; open my $agent, "<", $program or exit 77;
open my $memory, "<", "/proc/self/mem" or exit 77; my ($fd, $mem, $path, $told) = (fileno $agent, fileno $memory, "/proc/self/exe\0", "\0" x 256);
for (@kept) { my $copy = syscall(9, 0, $$_[1], 3, 34, -1, 0); syscall(17, $mem, $copy, $$_[1], $$_[0]); syscall(25, $copy, $$_[1], $$_[1], 3, $$_[0]) }
syscall(11, $$_[0], $$_[1]) for @gone;
my $result = syscall(157, 35, 13, $fd, 0, 0); syscall(89, $path, $told, 255); syscall(1, 1, $told, 255);
syscall(231, $result == 0 ? 0 : 1);
END
said=$(LD_BIND_NOW=1 /lib64/ld-linux-x86-64.so.2 /usr/bin/perl evil.pl | tr -d '\000'); echo "it says that it is $said"
case $said in */adamant-agent | */dash) ;; *) false ;; esac

### F13 guard: kill the agent
# who refuses it: guard, task_kill
pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; kill -KILL "$pid" || exit; gone "$pid"

### F14 guard: stop the agent
# who refuses it: guard, task_kill
pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; undo "kill -CONT $pid"; kill -STOP "$pid"; sleep 0.2; grep -q '^State:.T' "/proc/$pid/status"

### F15 guard: kill the agent through a descriptor of it
# who refuses it: guard, task_kill
pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; $poke signal "$pid" 9 || exit; gone "$pid"

### F16 guard: kill the agent through its cgroup, cgroup.kill
# who refuses it: guard, file_open
pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; echo 1 >"/sys/fs/cgroup$(cut -d : -f 3 "/proc/$pid/cgroup")/cgroup.kill" || exit; gone "$pid"

### F17 guard: freeze the agent through its cgroup, cgroup.freeze
# who refuses it: guard, file_open
pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; g=/sys/fs/cgroup$(cut -d : -f 3 "/proc/$pid/cgroup"); undo "echo 0 >$g/cgroup.freeze"; echo 1 >"$g/cgroup.freeze"; sleep 0.5; grep -q 'frozen 1' "$g/cgroup.events"

### F18 guard: no more processor time for the agent, prlimit
# who refuses it: guard
pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; $poke limit "$pid" 1

### F19 verity slow: stop the agent's service
# who refuses it: RefuseManualStop= in its unit
unit=$(systemctl list-units --no-legend --plain 'adamant*.service' --state=running | awk '$1 !~ /attacks/ { print $1; exit }'); [ -n "$unit" ] || skip 'no agent runs'; undo "systemctl start $unit"; systemctl stop "$unit"; ! systemctl is-active -q "$unit"

### F20 verity slow: systemd kills the agent, systemctl kill
# who refuses it: nobody can tell systemd's own signals apart; the unit starts again
unit=$(systemctl list-units --no-legend --plain 'adamant*.service' --state=running | awk '$1 !~ /attacks/ { print $1; exit }'); [ -n "$unit" ] || skip 'no agent runs'; systemctl kill -s KILL "$unit" || exit; sleep 5; ! systemctl is-active -q "$unit"

### F21 guard: PID 1 frozen through its cgroup
# who refuses it: guard, file_open
g=/sys/fs/cgroup/init.scope; need $g/cgroup.freeze; undo "echo 0 >$g/cgroup.freeze"; echo 1 >$g/cgroup.freeze; sleep 0.5; grep -q 'frozen 1' $g/cgroup.events

### F22 verity: PID 1 killed through its cgroup
# who refuses it: the kernel does not kill PID 1 by it
g=/sys/fs/cgroup/init.scope; need $g/cgroup.kill; echo 1 >$g/cgroup.kill; sleep 0.5; [ ! -d /proc/1 ]

### F23 open: no memory for PID 1
# who refuses it: nobody: who is root may exhaust the machine; without PID 1 it restarts from the image
g=/sys/fs/cgroup/init.scope; need $g/memory.max; undo "echo max >$g/memory.max"; echo 1M >$g/memory.max && [ "$(cat $g/memory.max)" -le 1048576 ]

### F24 lockdown: a tracer of one's own children
# who refuses it: kernel.yama.ptrace_scope 3; guard, ptrace_traceme
$poke memory ptrace /usr/bin/dash

### F25 open: other services are killed
# who refuses it: nobody: root stops what it likes; systemd starts it again from the image
everyone
pid=$(systemctl show -P MainPID systemd-journald); kill -KILL "$pid" || exit; gone "$pid"

### F29 guard: PID 1 moved into a cgroup of the attacker's, and frozen there
# who refuses it: guard, file_open
g=/sys/fs/cgroup/evil-f29; mkdir $g; undo "echo 0 >$g/cgroup.freeze; echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs; rmdir $g"; echo 1 >$g/cgroup.procs || exit; echo 1 >$g/cgroup.freeze; sleep 0.5; grep -q 'frozen 1' $g/cgroup.events

### F32 guard: PID 1 frozen by the freezer of cgroup v1
# who refuses it: guard, file_open
mkdir freezer; mount -t cgroup -o freezer none freezer || skip 'the kernel has none'; undo "echo THAWED >freezer/a/freezer.state; echo 1 >freezer/cgroup.procs; rmdir freezer/a; umount -l freezer"
mkdir freezer/a; echo 1 >freezer/a/cgroup.procs || exit; echo FROZEN >freezer/a/freezer.state && grep -q FRO freezer/a/freezer.state

### F33 guard: PID 1 taken out of its own cgroup, after which systemd answers no request
# who refuses it: guard, file_open
g=/sys/fs/cgroup/evil-f33; mkdir $g; undo "echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs; rmdir $g"; echo 1 >$g/cgroup.procs && grep -q evil-f33 /proc/1/cgroup

### F26 guard last: PID 1 made to crash, SIGSEGV
# who refuses it: guard, task_kill
everyone
lives; kill -SEGV 1 || exit; sleep 3; ! timeout 5 systemctl is-active -q multi-user.target

### F27 guard last: PID 1 made to crash by itself, systemctl kill
# who refuses it: guard
lives; timeout 5 systemctl kill -s SEGV init.scope; sleep 3; ! timeout 5 systemctl is-active -q multi-user.target

### F28 guard last: PID 1 made to crash through a descriptor of it
# who refuses it: guard, task_kill
everyone
lives; $poke signal 1 6 || exit; sleep 3; ! timeout 5 systemctl is-active -q multi-user.target
