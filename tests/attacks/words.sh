# Functions and variables of the attacks: `inside` reads this file before a body.
here=/usr/lib/attacks
poke=$here/poke
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C

# The machine, which `inside` looks at once:
#   $disk                            the image's disk, such as sda
#   $esp $data $tree $var $logs      its partitions: ESP, root, hash tree, volumes
#   $root $dm                        the device number of / and its device mapper name
#   $start                           first sector of the partition $data
#   $hosts_mounts $hosts_processes   namespaces of PID 1
# cat reads the file, because the guard refuses scripts of a volume to the shell.
eval "$(cat /var/lib/attacks/words)"

# skip REASON: ends the attack as not applicable here.
skip() { echo "$*"; exit 77; }
# need FILE|PROGRAM...: without each of them, the attack is not applicable.
need() { for thing; do [ -e "$thing" ] || command -v "$thing" >/dev/null || skip "no $thing here"; done; }
# ran TEXT: whether the attacker's program printed this text.
ran() { echo "$1"; case $1 in *"evil program ran"*) ;; *) return 1 ;; esac; }
# undo COMMAND: runs the command at the end of the attack, whatever its result. The last one runs
# first.
undone=
trap 'exit 124' TERM
undo() { undone="$1
$undone"; trap 'eval "$undone" 2>/dev/null' EXIT; }
# setting FILE VALUE: writes a setting, checks it, and restores the old value at the end.
setting() {
  need "$1"
  old=$(cat "$1") || return 1
  [ "$old" != "$2" ] || skip "$1 is $2 already"
  undo "printf '%s\n' '$old' >$1"
  printf '%s\n' "$2" >"$1" && [ "$(cat "$1" | tr -s '\t ' ' ')" = "$2" ]
}
# evil DIRECTORY: copies the attackers' program there, as `$evil`. A user without write access to
# /var takes the attack's own directory.
evil() { [ "$1" != /var ] || [ -w /var ] || set -- "$PWD"; evil=$1/evil-program; undo "rm -f $evil"; cp $poke "$evil" && chmod 0755 "$evil"; }
# $mark: a file that a program of the attacker creates when it runs.
mark=$PWD/mark
# host COMMAND...: runs the command in the mount namespace of PID 1, to check the attack's effect. A
# container could not enter it by itself.
host() { if [ "$(readlink /proc/self/ns/mnt)" = "$hosts_mounts" ]; then "$@"; else nsenter --mount=/proc/self/fd/8 -- "$@"; fi; }
# gone PID: whether the process ends within 2.5 s.
gone() { for t in 1 2 3 4 5; do [ -d "/proc/$1" ] || return 0; sleep 0.5; done; return 1; }
# ours: not applicable in a mount namespace of the attacker, where it would do no harm.
ours() { [ "$(readlink /proc/self/ns/mnt)" = "$hosts_mounts" ] || skip 'in a namespace of its own'; }
# everyone: not applicable in a container, where PID 1 and all numbers differ.
everyone() { [ "$(readlink /proc/self/ns/pid)" = "$hosts_processes" ] || skip 'other processes are not seen from here'; }
# user COMMAND...: runs the command as a user who is not root.
user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --clear-groups "$@"; else "$@"; fi; }
# A user without CAP_SYS_ADMIN creates a user namespace first, where other namespaces are allowed.
case $attacker in
  user | CAP_*) [ "$attacker" = CAP_SYS_ADMIN ] || unshare() { command unshare --user --map-root-user "$@"; } ;;
esac
# module NAME: unpacks the image's module to the attack's directory, as `$ko`.
module() {
  found=$(find "/usr/lib/modules/$(uname -r)/kernel" -name "$1.ko*" | head -n 1)
  [ -n "$found" ] || skip "no module $1"
  ko=$PWD/$1.ko
  case $found in *.xz) xz -dc "$found" >"$ko" ;; *.zst) zstd -dc "$found" >"$ko" ;; *) cp "$found" "$ko" ;; esac
}
# unsigned: removes the signature of $ko. Without an interpreter: if the guard refuses scripts, perl
# can't open a file of a volume.
unsigned() {
  [ "$(tail -c 28 "$ko")" = '~Module signature appended~' ] || skip 'modules have no signatures'
  # The kernel's struct module_signature ends with the signature's length, big-endian. A text of 28
  # bytes follows.
  set -- $(tail -c 32 "$ko" | od -An -N4 -tu1)
  truncate -s $(($(stat -c %s "$ko") - 40 - ($1 << 24) - ($2 << 16) - ($3 << 8) - $4)) "$ko"
  [ "$(tail -c 28 "$ko")" != '~Module signature appended~' ] || exit 77
}
# absent NAME: not applicable if the module is loaded already.
absent() { ! grep -q "^$1 " /proc/modules || skip "$1 is loaded already"; }
# became NAME: whether the module is loaded within 3 s.
became() { for t in 1 2 3 4 5 6; do ! grep -q "^$1 " /proc/modules || return 0; sleep 0.5; done; return 1; }
# powerless COMMAND...: runs the command without CAP_SYS_MODULE.
powerless() { if [ "$(id -u)" = 0 ]; then setpriv --bounding-set=-sys_module --inh-caps=-sys_module "$@"; else "$@"; fi; }
# other_slot: the partition of an empty slot, as `$other`.
other_slot() {
  other=$(for p in /sys/class/block/"$disk"?*; do ! grep -q '^PARTNAME=_empty$' "$p/uevent" || basename "$p"; done | head -n 1)
  [ -n "$other" ] || skip 'there is no other slot'
}
# lives: not applicable if an earlier attack ended PID 1.
lives() { timeout 5 systemctl is-active -q multi-user.target || skip 'PID 1 is gone already'; }
# cgroup_v1: whether the kernel has the first version of cgroups.
cgroup_v1() { grep -q '^nodev[[:space:]]*cgroup$' /proc/filesystems || skip 'no cgroup v1'; }
# driver MODULE FILE: loads the module that makes FILE. If the image has the module and the kernel
# does not load it, the attack is refused. Without the module, it is not applicable.
driver() {
  [ ! -e "$2" ] || return 0
  modprobe -n -q "$1" || skip "no module $1"
  modprobe "$1"
  [ -e "$2" ] || exit 1
}
# service_with_mounts: the process of a service with its own mount namespace, as `$pid`. A user, who
# can't see the namespaces of services, takes the first service.
service_with_mounts() {
  everyone
  for unit in systemd-logind systemd-udevd systemd-resolved systemd-networkd systemd-timesyncd; do
    pid=$(systemctl show -P MainPID $unit)
    [ "${pid:-0}" != 0 ] && [ -d "/proc/$pid" ] || continue
    [ "$(readlink "/proc/$pid/ns/mnt")" = "$hosts_mounts" ] || return 0
  done
  skip 'no service has a mount namespace of its own'
}
# agent_process: the process of the agent's watch, as `$pid`.
agent_process() {
  everyone
  pid=$(systemctl show -P MainPID adamant-watch.service)
  [ "${pid:-0}" != 0 ] || skip 'no agent runs'
}
