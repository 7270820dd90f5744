# Words that the attacks are written with.
here=/usr/lib/attacks
poke=$here/poke
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C

# What `inside` found out about the machine, once: `$disk` that the image is on, such as sda, and its partitions: `$esp`, `$data` of the root's blocks, `$tree` of its
# hash tree, `$var` and `$logs` of the volumes; `$root`, the device of /, and its name `$dm`; `$start`, the first sector of the root's blocks on the disk.
# Not read by the shell: with scripts refused, that file is none for it.
eval "$(cat /var/lib/attacks/words)"

# skip WHY: not applicable here.
skip() { echo "$*"; exit 77; }
# need FILE|PROGRAM...: all of them, or it is not applicable.
need() { for thing; do [ -e "$thing" ] || command -v "$thing" >/dev/null || skip "no $thing here"; done; }
# ran TEXT: whether the attacker's program was what said this.
ran() { echo "$1"; case $1 in *"evil program ran"*) ;; *) return 1 ;; esac; }
# undo COMMAND: when the attack ends, however it does. The last one first.
undone=
trap 'exit 124' TERM
undo() { undone="$1
$undone"; trap 'eval "$undone" 2>/dev/null' EXIT; }
# setting FILE VALUE: writes a setting and looks whether it is so; it is put back later.
setting() {
  need "$1"
  old=$(cat "$1") || return 1
  [ "$old" != "$2" ] || skip "$1 is $2 already"
  undo "printf '%s\n' '$old' >$1"
  printf '%s\n' "$2" >"$1" && [ "$(cat "$1" | tr -s '\t ' ' ')" = "$2" ]
}
# evil FOLDER: the attacker's program there, as `$evil`. On the state volume, everybody has a place of his own.
evil() { [ "$1" != /var ] || [ -w /var ] || set -- "$PWD"; evil=$1/evil-program; undo "rm -f $evil"; cp $poke "$evil" && chmod 0755 "$evil"; }
# script: a program file of the attacker's that leaves a mark when somebody runs it.
mark=$PWD/mark
# host COMMAND...: where everyone else is, to look at what came of it: also from a container, which could not get there by itself.
host() { if [ "$(readlink /proc/self/ns/mnt)" = "$hosts_mounts" ]; then "$@"; else nsenter --mount=/proc/self/fd/8 -- "$@"; fi; }
# gone PID: it is, or will be in a moment, as a busy machine needs one.
gone() { for t in 1 2 3 4 5; do [ -d "/proc/$1" ] || return 0; sleep 0.5; done; return 1; }
# ours: what is tried would be no harm in a namespace of one's own.
ours() { [ "$(readlink /proc/self/ns/mnt)" = "$hosts_mounts" ] || skip 'in a namespace of its own'; }
# everyone: in a container PID 1 and all numbers are others.
everyone() { [ "$(readlink /proc/self/ns/pid)" = "$hosts_processes" ] || skip 'other processes are not seen from here'; }
# user COMMAND...: as somebody who is not root.
user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=65534 --clear-groups "$@"; else "$@"; fi; }
# Whoever may not make namespaces makes a user namespace first, where he may.
case $attacker in
  user | CAP_*) [ "$attacker" = CAP_SYS_ADMIN ] || unshare() { command unshare --user --map-root-user "$@"; } ;;
esac
# module NAME: the image's module, unpacked here, as `$ko`.
module() {
  found=$(find "/usr/lib/modules/$(uname -r)/kernel" -name "$1.ko*" | head -n 1)
  [ -n "$found" ] || skip "no module $1"
  ko=$PWD/$1.ko
  case $found in *.xz) xz -dc "$found" >"$ko" ;; *.zst) zstd -dc "$found" >"$ko" ;; *) cp "$found" "$ko" ;; esac
}
# unsigned: takes the signature off $ko. No interpreter is used: where scripts are refused, perl opens no file of a volume.
unsigned() {
  [ "$(tail -c 28 "$ko")" = '~Module signature appended~' ] || skip 'modules have no signatures'
  # The kernel's struct module_signature ends with the length of the signature, big-endian; the text of 28 bytes follows.
  set -- $(tail -c 32 "$ko" | od -An -N4 -tu1)
  truncate -s $(($(stat -c %s "$ko") - 40 - ($1 << 24) - ($2 << 16) - ($3 << 8) - $4)) "$ko"
  [ "$(tail -c 28 "$ko")" != '~Module signature appended~' ] || exit 77
}
# absent NAME: the module is not loaded yet.
absent() { ! grep -q "^$1 " /proc/modules || skip "$1 is there already"; }
# became NAME: the module is loaded, or will be in a moment.
became() { for t in 1 2 3 4 5 6; do ! grep -q "^$1 " /proc/modules || return 0; sleep 0.5; done; return 1; }
# powerless COMMAND...: as whoever this is, without CAP_SYS_MODULE.
powerless() { if [ "$(id -u)" = 0 ]; then setpriv --bounding-set=-sys_module --inh-caps=-sys_module "$@"; else "$@"; fi; }
# other_slot: an empty slot's partition, as `$other`.
other_slot() {
  other=$(for p in /sys/class/block/"$disk"?*; do ! grep -q '^PARTNAME=_empty$' "$p/uevent" || basename "$p"; done | head -n 1)
  [ -n "$other" ] || skip 'there is no other slot'
}
# lives: PID 1 does; an attack before may have ended that.
lives() { timeout 5 systemctl is-active -q multi-user.target || skip 'PID 1 is gone already'; }
