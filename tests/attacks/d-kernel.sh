# Class D: the kernel: its code, its settings, the programs that it starts, its clock, its BPF.

### D01 lockdown: a module without a signature, by finit_module
# who refuses it: kernel.modules_disabled and lockdown; guard, kernel_read_file
module dummy; unsigned
undo 'rmmod dummy'; $poke module "$ko" && grep -q '^dummy ' /proc/modules

### D02 lockdown: a module without a signature, by init_module
# who refuses it: kernel.modules_disabled and lockdown; guard, kernel_load_data
module dummy; unsigned
undo 'rmmod dummy'; $poke module-bytes "$ko" && grep -q '^dummy ' /proc/modules

### D03 verity: a signed module that was changed
# who refuses it: the kernel: it takes modules without a signature, and none with a wrong one; guard, kernel_read_file
module dummy; at=$(grep -obUa 'dummy%d' "$ko" | head -n 1); [ -n "$at" ] || skip 'the module has no such text'
printf evil%%%%d | dd of="$ko" bs=1 seek="${at%%:*}" conv=notrunc status=none; grep -qUa 'evil%%d' "$ko" || skip 'the module was not changed'
undo 'rmmod dummy'; $poke module "$ko" && grep -q '^dummy ' /proc/modules

### D04 lockdown: a signed module from a volume
# who refuses it: kernel.modules_disabled; guard, kernel_read_file
module dummy; undo 'rmmod dummy'; $poke module "$ko" && grep -q '^dummy ' /proc/modules

### D05 lockdown: a module of the image's that was not declared, by modprobe
# who refuses it: kernel.modules_disabled; guard, kernel_read_file
undo 'rmmod dummy'; modprobe dummy && grep -q '^dummy ' /proc/modules

### D06 lockdown: a module by its alias, which the kernel asks for on behalf of a task without CAP_SYS_MODULE
# who refuses it: kernel.modules_disabled; guard, kernel_module_request
absent dummy; undo 'ip link del evil0; rmmod dummy'; powerless ip link add evil0 type dummy && ip link show evil0

### D84 lockdown: a module with parameters, by modprobe
# who refuses it: kernel.modules_disabled; guard, kernel_read_file
absent dummy; undo 'rmmod dummy'; modprobe dummy numdummies=3 && grep -q '^dummy ' /proc/modules

### D85 lockdown: a module of the image's, by insmod of its file
# who refuses it: kernel.modules_disabled; guard, kernel_read_file
absent dummy; undo 'rmmod dummy'; insmod "$(find "/usr/lib/modules/$(uname -r)/kernel" -name 'dummy.ko*')" && grep -q '^dummy ' /proc/modules

### D86 open: a module of the image's, which the kernel asks for on behalf of root
# who refuses it: lockdown, kernel.modules_disabled; guard, nobody unless module_loading is "boot": the module is the image's and has no parameters of root's
absent veth; undo 'ip link del evil0; rmmod veth'; ip link add evil0 type veth && grep -q '^veth ' /proc/modules

### D87 lockdown: a protocol's or a cipher's module, asked for by a user
# who refuses it: kernel.modules_disabled; guard, kernel_module_request
before=$(wc -l </proc/modules); user perl -e 'for $f (1 .. 45) { socket(S, $f, $_, 0) for 1 .. 5 } socket(S, 2, 5, 132); socket(S, 2, 6, 33); socket(A, 38, 5, 0) and bind(A, pack("S a14 L L a64", 38, "hash", 0, 0, "wp512"))'; [ "$(wc -l </proc/modules)" -gt "$before" ]

### D88 guard: an event for systemd-udevd with a name of the attacker's, which the kernel passes on as its own
# who refuses it: guard, netlink_send
absent dummy; undo 'rmmod dummy'; $poke uevent /devices/virtual/mem/null mem dummy; became dummy

### D89 guard: a module by udevadm test-builtin
# who refuses it: guard, kernel_read_file (lockdown: kernel.modules_disabled)
absent dummy; undo 'rmmod dummy'; udevadm test-builtin 'kmod load dummy' /sys/class/net/lo; became dummy

### D90 guard: udevadm test-builtin as a unit, with all of systemd's privileges
# who refuses it: guard, kernel_read_file (lockdown: kernel.modules_disabled)
absent dummy; undo 'rmmod dummy'; busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager StartTransientUnit 'ssa(sv)a(sa(sv))' evil-d90.service replace 2 Type s oneshot ExecStartEx 'a(sasas)' 1 /usr/bin/udevadm 4 udevadm test-builtin 'kmod load dummy' /sys/class/net/lo 1 privileged 0; became dummy

### D91 guard slow last: a systemd-udevd of the attacker's own, with rules of his own in a mount namespace of his own
# who refuses it: guard, kernel_read_file
absent dummy; undo 'rmmod dummy'; mkdir rules; echo 'KERNEL=="null", RUN{builtin}+="kmod load dummy"' >rules/99-evil.rules
unshare --mount sh -c 'mount --bind rules /usr/lib/udev/rules.d && { timeout 10 /usr/lib/systemd/systemd-udevd & sleep 2; echo add >/sys/devices/virtual/mem/null/uevent; sleep 4; }'; became dummy

### D92 guard: a process is made in systemd-udevd's cgroup, by clone3
# who refuses it: guard, task_alloc
absent dummy; undo 'rmmod dummy'; g=/sys/fs/cgroup/system.slice/systemd-udevd.service; [ ! -d $g/udev ] || g=$g/udev; need $g; $poke into $g /usr/bin/udevadm test-builtin 'kmod load dummy' /sys/class/net/lo; became dummy

### D93 guard: a process is put into systemd-udevd's cgroup by systemd, AttachProcessesToUnit
# who refuses it: systemd: the agent's drop-in says that nobody else has that cgroup; guard, kernel_read_file
absent dummy; undo 'rmmod dummy'; sh -c 'busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager AttachProcessesToUnit ssau systemd-udevd.service "" 1 $$ && exec udevadm test-builtin "kmod load dummy" /sys/class/net/lo'; became dummy

### D94 guard: a process puts itself into systemd-udevd's cgroup
# who refuses it: guard, file_open
absent dummy; undo 'rmmod dummy'; g=/sys/fs/cgroup/system.slice/systemd-udevd.service; [ ! -d $g/udev ] || g=$g/udev; need $g; sh -c "echo \$\$ >$g/cgroup.procs && exec udevadm test-builtin 'kmod load dummy' /sys/class/net/lo"; became dummy

### D95 guard: systemd-executor by hand, which may put itself into any cgroup
# who refuses it: guard, bprm_check_security
need /usr/lib/systemd/systemd-executor; /usr/lib/systemd/systemd-executor --version

### D96 guard: a list of modules of the attacker's, given to systemd-modules-load
# who refuses it: guard, kernel_read_file (lockdown: kernel.modules_disabled)
absent dummy; undo 'rmmod dummy'; echo dummy >evil.conf; /usr/lib/systemd/systemd-modules-load "$PWD/evil.conf"; became dummy

### D97 guard: a kernel command line of the attacker's for systemd-modules-load, by the manager's environment
# who refuses it: the agent's drop-in (lockdown: kernel.modules_disabled)
absent dummy; undo 'rmmod dummy; systemctl unset-environment SYSTEMD_PROC_CMDLINE'; systemctl set-environment SYSTEMD_PROC_CMDLINE=modules_load=dummy && systemctl restart systemd-modules-load; became dummy

### D98 guard: a list of modules in /run/modules-load.d
# who refuses it: guard, inode_create
absent dummy; undo 'rmmod dummy; rm -f /run/modules-load.d/evil.conf'; mkdir -p /run/modules-load.d; echo dummy >/run/modules-load.d/evil.conf; systemctl restart systemd-modules-load; became dummy

### D99 lockdown: modprobe with a configuration of the attacker's, by its environment
# who refuses it: kernel.modules_disabled; guard, kernel_read_file
absent dummy; undo 'rmmod dummy'; mkdir conf; echo 'options dummy numdummies=3' >conf/evil.conf; MODPROBE_OPTIONS="-C $PWD/conf" modprobe dummy && grep -q '^dummy ' /proc/modules

### D100 guard slow: rules of the attacker's are mounted over systemd-udevd's own, in its mount namespace
# who refuses it: guard, sb_mount
absent dummy; p=$(systemctl show -p MainPID --value systemd-udevd); [ "${p:-0}" != 0 ] || skip 'no systemd-udevd'; mkdir rules; echo 'KERNEL=="null", RUN{builtin}+="kmod load dummy"' >rules/99-evil.rules
undo "rmmod dummy; nsenter -t $p -m umount /run/udev/rules.d; udevadm control --reload"; nsenter -t "$p" -m mount --bind "$PWD/rules" /run/udev/rules.d && udevadm control --reload && echo add >/sys/devices/virtual/mem/null/uevent; became dummy

### D101 guard: another kernel command line for systemd-udevd's modules, in its mount namespace
# who refuses it: guard, sb_mount
p=$(systemctl show -p MainPID --value systemd-udevd); [ "${p:-0}" != 0 ] || skip 'no systemd-udevd'; echo dummy.numdummies=3 >line
undo "nsenter -t $p -m umount /proc/cmdline"; nsenter -t "$p" -m mount --bind "$PWD/line" /proc/cmdline && nsenter -t "$p" -m grep numdummies /proc/cmdline

### D102 verity slow: a property for all of systemd-udevd's events, udevadm control
# who refuses it: udev: rules can match it, and the module that is loaded is the one that the device names
absent dummy; undo 'rmmod dummy; udevadm control --property=MODALIAS='; udevadm control --property=MODALIAS=dummy || exit
echo add >/sys/devices/virtual/mem/null/uevent; udevadm settle --timeout=30 || skip 'systemd-udevd handled no event'; became dummy

### D103 verity slow: a name in systemd-udevd's database
# who refuses it: udev: it takes an event's name from the kernel
absent dummy; undo 'rmmod dummy; rm -f /run/udev/data/c1:3'; printf 'E:MODALIAS=dummy\n' >/run/udev/data/c1:3; echo add >/sys/devices/virtual/mem/null/uevent; became dummy

### D104 verity: an event with a name of the attacker's, by the device's own file
# who refuses it: the kernel: it marks what it was given
absent dummy; undo 'rmmod dummy'; echo 'add 11111111-2222-3333-4444-555555555555 MODALIAS=dummy' >/sys/devices/virtual/mem/null/uevent; became dummy

### D105 lockdown: a module by systemd's own unit for that
# who refuses it: kernel.modules_disabled; guard, kernel_read_file
absent dummy; undo 'rmmod dummy'; systemctl start modprobe@dummy.service && became dummy

### D106 lockdown: a module is taken away
# who refuses it: kernel.modules_disabled; guard, capable
grep -q '^msr ' /proc/modules || skip 'msr is not there'; undo 'modprobe msr'; rmmod msr; ! grep -q '^msr ' /proc/modules

### D107 guard: a module from a volume by its path, which the kernel asks for as a network device
# who refuses it: guard, kernel_read_file (lockdown: kernel.modules_disabled)
absent dummy; undo 'rmmod dummy; rm -f /run/evil.ko'; module dummy; ln -s "$ko" /run/evil.ko; perl -e 'socket(S, 2, 2, 0); $r = pack("a16 x24", "/run/evil.ko"); ioctl(S, 0x8933, $r)'; became dummy

### D07 lockdown: modules enabled again
# who refuses it: the kernel, kernel.modules_disabled goes one way
setting /proc/sys/kernel/modules_disabled 0

### D08 guard: another program in kernel.modprobe
# who refuses it: guard, file_open
setting /proc/sys/kernel/modprobe "$PWD/evil"

### D09 guard: the kernel starts the attacker's program by kernel.modprobe
# who refuses it: guard, file_open and bprm_check_security
undo 'mount -o remount,bind,noexec /var'; mount -o remount,bind,exec /var; printf '#!/bin/sh\ntouch %s\n' "$mark" >evil; chmod 755 evil; chmod 777 .
setting /proc/sys/kernel/modprobe "$PWD/evil"; printf '\377\376\375\374' >unknown; chmod 755 unknown; ./unknown; sleep 1; [ -e "$mark" ]

### D10 guard: a program of the attacker's in core_pattern
# who refuses it: guard, file_open
setting /proc/sys/kernel/core_pattern "|$PWD/evil"

### D11 guard: core_pattern runs a shell with the attacker's script
# who refuses it: guard, file_open
printf 'touch %s\n' "$mark" >evil; setting /proc/sys/kernel/core_pattern "|/bin/sh $PWD/evil" || exit; sh -c 'ulimit -c unlimited; kill -SEGV $$'; sleep 1; [ -e "$mark" ]

### D12 guard: core_pattern as a file in a folder of the image's programs' data
# who refuses it: guard, file_open
setting /proc/sys/kernel/core_pattern /run/core

### D13 guard: the helper for uevents, /sys/kernel/uevent_helper
# who refuses it: guard, file_open
setting /sys/kernel/uevent_helper "$PWD/evil"

### D14 guard: the helper for uevents, kernel.hotplug
# who refuses it: guard, file_open
setting /proc/sys/kernel/hotplug "$PWD/evil"

### D15 guard: kernel.poweroff_cmd
# who refuses it: guard, file_open
setting /proc/sys/kernel/poweroff_cmd "$PWD/evil"

### D16 guard: a release agent of cgroup v1
# who refuses it: guard, file_open
mkdir -p /run/d16; undo 'umount -l /run/d16; rmdir /run/d16'; mount -t cgroup -o none,name=evil cgroup /run/d16 || skip 'no cgroup v1'
echo "$PWD/evil" >/run/d16/release_agent && grep -q evil /run/d16/release_agent

### D17 guard: a release agent as a mount option
# who refuses it: guard, bprm_check_security
mkdir -p /run/d17; undo 'umount -l /run/d17; rmdir /run/d17; mount -o remount,bind,noexec /var'; mount -o remount,bind,exec /var; printf '#!/bin/sh\ntouch %s\n' "$mark" >evil; chmod 755 evil; chmod 777 .
mount -t cgroup -o "none,name=evil2,release_agent=$PWD/evil" cgroup /run/d17 || skip 'no cgroup v1'
mkdir /run/d17/x; undo 'rmdir /run/d17/x'; echo 1 >/run/d17/notify_on_release; echo 1 >/run/d17/x/notify_on_release; sh -c 'echo $$ >/run/d17/x/cgroup.procs'; sleep 1; rmdir /run/d17/x 2>/dev/null; sleep 1; [ -e "$mark" ]

### D18 guard: a shell of the image's as release agent, with no script it could be given
# who refuses it: guard, file_open
mkdir -p /run/d18; undo 'umount -l /run/d18; rmdir /run/d18'; mount -t cgroup -o none,name=evil3 cgroup /run/d18 || skip 'no cgroup v1'
echo /bin/sh >/run/d18/release_agent && grep -q sh /run/d18/release_agent

### D19 guard: firmware from a folder of the attacker's
# who refuses it: guard, file_open
need /sys/module/firmware_class/parameters/path; setting /sys/module/firmware_class/parameters/path "$PWD"

### D20 guard: the limits of what the kernel's helpers may do
# who refuses it: guard, file_open
need /proc/sys/kernel/usermodehelper/bset; cat /proc/sys/kernel/usermodehelper/bset >was; cat was >/proc/sys/kernel/usermodehelper/bset

### D21 verity: a program for request_key, which the image has not
# who refuses it: EROFS
printf '#!/bin/sh\n' >/usr/sbin/request-key

### D22 lockdown: write to physical memory
# who refuses it: lockdown
need /dev/mem; exec 3<>/dev/mem || exit; dd if=/dev/zero bs=1 count=1 seek=$((0x500)) of=/dev/mem conv=notrunc 2>&1

### D23 guard: read the kernel's memory through /proc/kcore
# who refuses it: guard, file_open
need /proc/kcore; [ "$(dd if=/proc/kcore bs=4096 count=16 2>/dev/null | wc -c)" -ge 65536 ] || [ "$(perl -e 'open F, "+<", "/proc/kcore" or exit; sysread F, $b, 65536; print $b' | wc -c)" -ge 4096 ]

### D24 lockdown: write to an I/O port
# who refuses it: lockdown
need /dev/port; printf '\000' | dd of=/dev/port bs=1 seek=128 count=1 conv=notrunc 2>&1

### D25 lockdown: I/O ports by ioperm and iopl
# who refuses it: lockdown
perl -e 'exit(syscall(173, 128, 1, 1) == 0 || syscall(172, 3) == 0 ? 0 : do { print "$!\n"; 1 })'

### D26 lockdown: a model-specific register
# who refuses it: lockdown
modprobe msr 2>/dev/null; need /dev/cpu/0/msr; dd if=/dev/cpu/0/msr of=value bs=8 count=1 skip=372 iflag=skip_bytes status=none && dd if=value of=/dev/cpu/0/msr bs=8 count=1 seek=372 oflag=seek_bytes conv=notrunc status=none

### D27 lockdown: a PCI device's memory
# who refuses it: lockdown
r=$(find /sys/devices/pci* -name 'resource[0-5]'); [ -n "$r" ] || skip 'no PCI'; perl -e 'for (@ARGV) { open F, "+<", $_ or do { print "$!\n"; next }; exit 0 if syscall(9, 0, 4096, 3, 1, fileno(F), 0) > 0; print "$!\n" } exit 1' $r

### D28 lockdown: a PCI device's configuration
# who refuses it: lockdown
c=$(ls /sys/bus/pci/devices/*/config | head -n 1); need "${c:-none}"; perl -e 'open F, "+<", $ARGV[0] or do { print "$!\n"; exit 1 }; sysread F, $v, 64; sysseek F, 60, 0; defined syswrite F, substr($v, 60, 1) or do { print "$!\n"; exit 1 }' "$c"

### D29 lockdown: a file of debugfs that can be written
# who refuses it: lockdown; guard, file_open
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null; f=$(find /sys/kernel/debug -maxdepth 3 -type f -perm -u+w 2>/dev/null | head -n 1); need "${f:-none}"; : 2>&1 >>"$f"

### D30 guard: a kprobe by tracefs
# who refuses it: guard, file_open
t=/sys/kernel/tracing; mount -t tracefs tracefs $t 2>/dev/null; need $t/kprobe_events; undo "echo '-:evil' >>$t/kprobe_events"; echo 'p:evil do_sys_openat2' >>$t/kprobe_events && grep -q evil $t/kprobe_events

### D31 guard: a trigger of tracefs that stops or snapshots
# who refuses it: guard, file_open
t=/sys/kernel/tracing; need $t/events/sched/sched_switch/trigger; undo "echo '!traceoff' >$t/events/sched/sched_switch/trigger; echo 1 >$t/tracing_on"; echo traceoff >$t/events/sched/sched_switch/trigger

### D32 guard: the function tracer
# who refuses it: guard, file_open
t=/sys/kernel/tracing; need $t/current_tracer; grep -q function $t/available_tracers || skip 'no function tracer'; undo "echo nop >$t/current_tracer; echo >$t/set_ftrace_filter"; echo do_sys_openat2 >$t/set_ftrace_filter && echo function >$t/current_tracer

### D33 lockdown: load a kernel to be started next, kexec_load
# who refuses it: lockdown, kernel.kexec_load_disabled; guard, kernel_load_data
$poke kexec

### D34 lockdown: load a kernel to be started next, kexec_file_load
# who refuses it: lockdown, kernel.kexec_load_disabled; guard, kernel_read_file
k=$(ls /boot/vmlinuz-* /usr/lib/modules/*/vmlinuz $here/vmlinuz 2>/dev/null | head -n 1); [ -n "$k" ] || skip 'no kernel in the image'
cp "$k" k; $poke kexec-file k

### D35 lockdown: kexec allowed again
# who refuses it: the kernel, kernel.kexec_load_disabled goes one way
setting /proc/sys/kernel/kexec_load_disabled 0

### D36 guard: the magic SysRq key by /proc
# who refuses it: guard, file_open
need /proc/sysrq-trigger; echo h >/proc/sysrq-trigger

### D37 guard: the magic SysRq key enabled for the console
# who refuses it: guard, file_open
setting /proc/sys/kernel/sysrq 1

### D38 guard: the place to wake up from, /sys/power/resume
# who refuses it: guard, file_open; lockdown refuses the image itself
need /sys/power/resume; v=$(cat "/sys/class/block/$var/dev"); setting /sys/power/resume "$v"

### D39 lockdown: hibernation
# who refuses it: lockdown
need /sys/power/state; grep -q disk /sys/power/state

### D40 lockdown: the memory's image by /dev/snapshot
# who refuses it: lockdown
need /dev/snapshot; exec 3</dev/snapshot

### D41 guard: swap on a file of a volume, which can be changed while it is used
# who refuses it: guard, file_open (Linux 6.9 and later)
[ "$(uname -r | cut -d . -f 2)" -ge 9 ] || skip 'no hook sees swapon before Linux 6.9; see D42'
dd if=/dev/zero of=swap bs=1M count=4 2>/dev/null; chmod 600 swap; mkswap swap >/dev/null; $poke swapon "$PWD/swap"

### D42 guard: swapped memory changed, in the swap file or below its file system
# who refuses it: the kernel (a swap file in use is not written); guard, file_open
dd if=/dev/zero of=swap bs=1M count=4 2>/dev/null; chmod 600 swap; mkswap swap >/dev/null; swapon swap || exit; undo "swapoff $PWD/swap"; $poke write "$PWD/swap" 8192 evil || $poke write "/dev/$var" 0

### D43 guard: swap on a disk
# who refuses it: guard, file_open
need /dev/nvme0n1; dd if=/dev/nvme0n1 of=first bs=4096 count=1 2>/dev/null; undo 'dd if=first of=/dev/nvme0n1 conv=notrunc,fsync'; mkswap -q /dev/nvme0n1 2>&1 && $poke swapon /dev/nvme0n1

### D44 guard: a format of programs by binfmt_misc
# who refuses it: guard, file_open
b=/proc/sys/fs/binfmt_misc; ls $b >/dev/null; [ -e $b/register ] || mount -t binfmt_misc binfmt_misc $b 2>/dev/null; need $b/register; undo "echo -1 >$b/evil"; echo ':evil:M::EVIL::/bin/sh:' >$b/register && [ -e $b/evil ]

### D45 guard: binfmt_misc of a user namespace's own
# who refuses it: guard, file_open (Linux 6.7 and later know it)
unshare --user --map-root-user --mount sh -c 'mkdir -p /run/d45 2>/dev/null; mount -t binfmt_misc b /tmp && echo ":evil:M::EVIL::/bin/sh:" >/tmp/register'

### D46 lockdown: lockdown lowered
# who refuses it: the kernel
need /sys/kernel/security/lockdown; echo none >/sys/kernel/security/lockdown; grep -q '\[none\]' /sys/kernel/security/lockdown

### D47 lockdown: BPF for everybody again
# who refuses it: the kernel: from 1 there is no way back
setting /proc/sys/kernel/unprivileged_bpf_disabled 0

### D48 lockdown: tracing allowed again
# who refuses it: the kernel: from 3 there is no way back
need /proc/sys/kernel/yama/ptrace_scope; [ "$(cat /proc/sys/kernel/yama/ptrace_scope)" != 0 ] || skip 'is 0'; setting /proc/sys/kernel/yama/ptrace_scope 0

### D49 guard: setuid programs leave cores again
# who refuses it: guard, file_open
setting /proc/sys/fs/suid_dumpable 1

### D50 guard: kernel addresses are shown again
# who refuses it: guard, file_open
setting /proc/sys/kernel/kptr_restrict 0

### D51 guard: no random addresses any more
# who refuses it: guard, file_open
setting /proc/sys/kernel/randomize_va_space 0

### D52 guard: links in sticky folders are followed again
# who refuses it: guard, file_open
setting /proc/sys/fs/protected_symlinks 0 && setting /proc/sys/fs/protected_hardlinks 0

### D53 guard: memory at address 0
# who refuses it: guard, file_open
setting /proc/sys/vm/mmap_min_addr 0

### D54 guard: events of the whole kernel for everybody
# who refuses it: guard, file_open
setting /proc/sys/kernel/perf_event_paranoid -1

### D55 guard: BPF's compiler without hardening
# who refuses it: guard, file_open
setting /proc/sys/net/core/bpf_jit_harden 0

### D56 guard: settings turned back from a mount namespace with a /proc of its own
# who refuses it: guard, file_open
mkdir p; unshare --mount --pid --fork sh -c "mount -t proc proc '$PWD/p' && echo 0 >'$PWD/p/sys/kernel/kptr_restrict'"; undo 'echo 2 >/proc/sys/kernel/kptr_restrict'; [ "$(cat /proc/sys/kernel/kptr_restrict)" = 0 ]

### D57 guard slow: settings by systemd, which reads /run/sysctl.d
# who refuses it: guard, inode_create
undo 'rm -rf /run/sysctl.d/evil.conf; echo 2 >/proc/sys/kernel/kptr_restrict'; mkdir -p /run/sysctl.d; echo 'kernel.kptr_restrict = 0' >/run/sysctl.d/zz-evil.conf; undo 'rm -f /run/sysctl.d/zz-evil.conf'; systemctl restart systemd-sysctl; [ "$(cat /proc/sys/kernel/kptr_restrict)" = 0 ]

### D58 guard: a settings file of the attacker's given to systemd's own program
# who refuses it: guard, file_open
undo 'echo 2 >/proc/sys/kernel/kptr_restrict'; echo 'kernel.kptr_restrict = 0' >evil.conf; /usr/lib/systemd/systemd-sysctl "$PWD/evil.conf"; [ "$(cat /proc/sys/kernel/kptr_restrict)" = 0 ]

### D59 guard: the clock set back by clock_settime
# who refuses it: guard, settime
$poke clock settime 1000000000

### D60 guard: the clock set back by settimeofday
# who refuses it: guard, settime
$poke clock settimeofday 1000000000

### D61 guard: the clock set back by adjtimex, which adds an offset
# who refuses it: guard, capable
$poke clock adjtimex 1000000000

### D62 guard: the clock set back by clock_adjtime
# who refuses it: guard, capable
$poke clock adjtime 1000000000

### D63 guard: the clock set back by systemd, timedatectl
# who refuses it: guard, settime
then=$(date +%s); undo 'date -s @$then; systemctl start systemd-timesyncd'; systemctl stop systemd-timesyncd; timedatectl set-time '2001-01-01 00:00:00'; [ "$(date +%Y)" = 2001 ]

### D64 guard: the hardware clock set back, which the next start would begin with
# who refuses it: guard, capable; and the agent sets a clock forward that is behind the image (tests/tests/credentials.rs)
need /dev/rtc0; byte() { printf %02x000000 "$1"; }; set -- $(date -u '+%-S %-M %-H %-d %-m %-Y')
undo "$poke ioctl /dev/rtc0 0x4024700a @$(byte "$1"; byte "$2"; byte "$3"; byte "$4"; byte $(($5 - 1)); byte $(($6 - 1900)))"
$poke ioctl /dev/rtc0 0x4024700a "@$(byte 0; byte 0; byte 0; byte 1; byte 0; byte 101)"

### D65 guard: the guard's links by their numbers, to be detached
# who refuses it: guard, bpf
$poke bpf links

### D66 guard: the guard's programs by their numbers
# who refuses it: guard, bpf and bpf_prog
$poke bpf programs

### D67 guard: the guard's maps by their numbers
# who refuses it: guard, bpf and bpf_map
$poke bpf maps

### D83 guard last: the guard's links taken away below the image, in a mount namespace where that is unmounted
# who refuses it: guard, inode_unlink
unshare -m perl -e 'open F, "<", "/proc/self/ns/mnt" or exit 1; $r = "/"; syscall(166, $r, 2) == 0 or do { print "umount: $!\n"; exit 1 }; syscall(308, fileno F, 0x20000) == 0 or do { print "setns: $!\n"; exit 1 }; @l = glob "/guard/*"; print "links: @l\n"; for (grep { !/task_prctl/ } @l) { unlink $_ or print "$_: $!\n" } exit((-e $l[0]) || !@l ? 1 : 0)'

### D68 guard: a BPF program that kills every task that hits a kprobe
# who refuses it: guard, bpf (lockdown refuses those that write memory)
$poke bpf kill

### D69 guard: a BPF program on a raw tracepoint
# who refuses it: guard, bpf
$poke bpf tracepoint

### D70 guard: a BPF program that looks on, by a kprobe
# who refuses it: guard, bpf
$poke bpf kprobe

### D71 guard: a BPF program for a network interface
# who refuses it: guard, bpf
$poke bpf xdp

### D72 guard: a BPF program for a cgroup, that lies about settings
# who refuses it: guard, bpf
$poke bpf cgroup

### D73 guard: a BPF map
# who refuses it: guard, bpf
$poke bpf map

### D74 guard: the guard's links by their names, in the initramfs' BPF file system
# who refuses it: the switch of root: no path leads there; guard, bpf
for p in /guard/bprm_check_security /sys/fs/bpf/bprm_check_security /proc/1/root/guard/bprm_check_security; do $poke bpf pinned $p && exit 0; done; false

### D75 guard: a BPF file system of one's own, where links would be
# who refuses it: guard, bpf
mount -t bpf bpf /run/d75 2>/dev/null; mkdir -p /run/d75; undo 'umount -l /run/d75; rmdir /run/d75'; mount -t bpf bpf /run/d75; ls /run/d75 | grep -q . && $poke bpf pinned "/run/d75/$(ls /run/d75 | head -n 1)"

### D76 guard: events of the whole system by perf_event_open
# who refuses it: guard, perf_event_open
$poke perf

### D77 guard: a device is given to a driver for user space, driver_override
# who refuses it: guard, file_open
d=$(ls -d /sys/bus/pci/devices/*/driver_override | head -n 1); need "${d:-none}"; undo "echo '' >$d"; echo evil >"$d" && grep -q evil "$d"

### D78 verity: keys that modules are trusted by
# who refuses it: the kernel: such keyrings take keys with a signature alone
perl -e '$t = "asymmetric"; $n = ""; $k = "x" x 64; open F, "<", "/proc/keys" or exit 1; for (<F>) { next unless /^(\w+) .*(builtin|secondary)_trusted_keys/; $f = 1; $id = hex $1; $id -= 2**32 if $id >= 2**31; exit 0 if syscall(248, $t, $n, $k, length $k, $id) >= 0; print "$!\n" } exit($f ? 1 : 77)'

### D79 guard: a key in the keyring that root hashes are trusted by
# who refuses it: the kernel: it is closed, or takes keys with a signature alone
perl -e '$t = "asymmetric"; $n = ""; $k = "x" x 64; open F, "<", "/proc/keys" or exit 1; for (<F>) { next unless /^(\w+) .*\.dm-verity/; $f = 1; $id = hex $1; $id -= 2**32 if $id >= 2**31; exit 0 if syscall(248, $t, $n, $k, length $k, $id) >= 0; print "$!\n" } exit($f ? 1 : 77)'

### D80 guard: profiles of AppArmor, that could stop the agent's programs
# who refuses it: guard, file_open
need /sys/kernel/security/apparmor/.replace; exec 3>/sys/kernel/security/apparmor/.replace

### D81 open: less processor and memory for others, by the kernel's settings
# who refuses it: nobody: who is root may exhaust the machine, and switch it off
echo 3 >/proc/sys/vm/drop_caches

### D82 verity: the watchdog is taken and disarmed
# who refuses it: the agent and systemd hold it
need /dev/watchdog0; exec 3>/dev/watchdog0 && printf V >&3
