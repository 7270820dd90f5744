# Class B: mounts that hide the image, or weaken a volume. What only the attacker's own namespace sees is no harm; each is looked for where the others are.

### B01 guard: an overlay over /usr/share
# who refuses it: guard, sb_mount
mkdir -p upper/x work; mount -t overlay -o "lowerdir=/usr/share,upperdir=$PWD/upper,workdir=$PWD/work" overlay /usr/share && undo 'umount -l /usr/share'
host test -d /usr/share/x

### B02 guard: a file over /etc/passwd
# who refuses it: guard, sb_mount
echo 'evil::0:0::/:/bin/sh' >passwd; mount --bind passwd /etc/passwd && undo 'umount -l /etc/passwd'
host grep -q '^evil' /etc/passwd

### B03 guard: a folder over /etc/ssh
# who refuses it: guard, sb_mount
mkdir ssh; touch ssh/evil; mount --bind ssh /etc/ssh && undo 'umount -l /etc/ssh'
host test -e /etc/ssh/evil

### B04 guard: an empty tmpfs over /opt
# who refuses it: guard, sb_mount
mount -t tmpfs tmpfs /opt && undo 'umount -l /opt'
host sh -c 'touch /opt/x'

### B05 guard: a tmpfs by fsopen, fsmount and move_mount
# who refuses it: guard, move_mount
$poke fsmount tmpfs /opt && undo 'umount -l /opt'
host sh -c 'touch /opt/x'

### B06 guard: a bind mount by open_tree and move_mount
# who refuses it: guard, move_mount
echo evil >hosts; $poke clone "$PWD/hosts" /etc/hosts && undo 'umount -l /etc/hosts'
host grep -q evil /etc/hosts

### B07 guard: a mount put beneath what is mounted on /tmp
# who refuses it: guard, move_mount (Linux 6.5 and later know it)
mkdir t; touch t/evil; $poke beneath "$PWD/t" /tmp || exit
undo 'umount -l /tmp'; umount -l /tmp; undo 'mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs /tmp'
host test -e /tmp/evil

### B08 guard: the volume at /var/log is moved away
# who refuses it: guard, sb_mount
undo 'for m in / /run /var /var/log; do mount --make-shared $m; done'; for m in / /run /var /var/log; do mount --make-private $m; done
mkdir -p /run/b08; mount --move /var/log /run/b08 && undo 'mount --move /run/b08 /var/log'
host grep -q ' /run/b08 ' /proc/self/mountinfo

### B09 guard: the volume at /var/log is moved away with move_mount
# who refuses it: guard, move_mount
undo 'for m in / /run /var /var/log; do mount --make-shared $m; done'; for m in / /run /var /var/log; do mount --make-private $m; done
mkdir -p /run/b09; $poke move /var/log /run/b09 && undo 'mount --move /run/b09 /var/log'
host grep -q ' /run/b09 ' /proc/self/mountinfo

### B10 guard: from another namespace, by nsenter into PID 1's
# who refuses it: guard, sb_mount
echo evil >hosts; unshare -m -- nsenter -t 1 -m -- mount --bind "$PWD/hosts" /etc/hosts && undo 'umount -l /etc/hosts'
host grep -q evil /etc/hosts

### B11 guard: over the image in a running service's own namespace
# who refuses it: guard, sb_mount
pid=$(for u in systemd-logind systemd-udevd systemd-resolved systemd-networkd systemd-timesyncd; do p=$(systemctl show -P MainPID $u); [ "$p" = 0 ] || [ "$(readlink /proc/$p/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ] || echo $p; done | head -n 1)
[ -n "$pid" ] || skip 'no service has a namespace of its own'
echo evil >/run/b11; undo 'rm -f /run/b11'; nsenter -t "$pid" -m -- mount --bind /run/b11 /etc/hosts && undo 'nsenter -t '"$pid"' -m -- umount -l /etc/hosts'
grep -q evil "/proc/$pid/root/etc/hosts"

### B12 guard: over the image in a running service's namespace, by systemd itself (systemctl bind)
# who refuses it: guard, sb_mount or move_mount
unit=$(for u in systemd-logind systemd-resolved systemd-networkd systemd-timesyncd; do systemctl is-active -q $u && echo $u; done | head -n 1)
[ -n "$unit" ] || skip 'no such service'
pid=$(systemctl show -P MainPID "$unit"); echo evil >b12
systemctl bind "$unit" "$PWD/b12" /etc/hosts && undo 'nsenter -t '"$pid"' -m -- umount -l /etc/hosts'
grep -q evil "/proc/$pid/root/etc/hosts"

### B42 guard: over the image in a running service's namespace, from another that it propagates to
# who refuses it: guard, sb_mount
pid=$(for u in systemd-logind systemd-udevd systemd-resolved systemd-networkd systemd-timesyncd; do p=$(systemctl show -P MainPID $u); [ "$p" = 0 ] || [ "$(readlink /proc/$p/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ] || echo $p; done | head -n 1)
[ -n "$pid" ] || skip 'no service has a namespace of its own'
echo evil >/run/b42; undo 'rm -f /run/b42'; nsenter -t "$pid" -m -- mount --make-rshared /; nsenter -t "$pid" -m -- unshare -m --propagation unchanged mount --bind /run/b42 /etc/hosts && undo 'nsenter -t '"$pid"' -m -- umount -l /etc/hosts'
grep -q evil "/proc/$pid/root/etc/hosts"

### B43 guard: another root for a running service, by pivot_root in its namespace
# who refuses it: guard, sb_pivotroot
pid=$(for u in systemd-logind systemd-udevd systemd-resolved systemd-networkd systemd-timesyncd; do p=$(systemctl show -P MainPID $u); [ "$p" = 0 ] || [ "$(readlink /proc/$p/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ] || echo $p; done | head -n 1)
[ -n "$pid" ] || skip 'no service has a namespace of its own'
mkdir -p /run/b43; undo 'rmdir /run/b43'; nsenter -t "$pid" -m -- sh -c "mount --make-rprivate /; mount -t tmpfs tmpfs /run/b43 && mkdir -p /run/b43/old /run/b43/etc && echo evil >/run/b43/etc/hosts && mkdir -p /run/b43/usr && mount --rbind /usr /run/b43/usr && $poke pivot /run/b43 /run/b43/old"
grep -q evil "/proc/$pid/root/etc/hosts"

### B13 guard: over a setting in /proc/sys
# who refuses it: guard, sb_mount
echo 0 >zero; mount --bind zero /proc/sys/kernel/kptr_restrict && undo 'umount -l /proc/sys/kernel/kptr_restrict'
[ "$(host cat /proc/sys/kernel/kptr_restrict)" = 0 ] && host grep -q kptr_restrict /proc/self/mountinfo

### B14 guard: over the kernel's security files
# who refuses it: guard, sb_mount
mkdir -p security; echo 'none [integrity] confidentiality' >security/lockdown; mount --bind security /sys/kernel/security && undo 'umount -l /sys/kernel/security'
host test ! -e /sys/kernel/security/lsm

### B15 guard: another /proc over /proc
# who refuses it: guard, sb_mount
mount -t proc proc /proc && undo 'umount -l /proc'
[ "$(host awk '$5 == "/proc"' /proc/self/mountinfo | wc -l)" -gt 1 ]

### B16 open: remount a volume exec
# who refuses it: nobody: no hook sees mount_setattr. It gives the attacker nothing: B17, B18, B19 and E09 try what it is for
undo 'mount -o remount,bind,nosuid,nodev,noexec /var'; mount -o remount,bind,exec /var
! host sh -c 'grep " /var " /proc/self/mountinfo | grep -q noexec'

### B17 guard: a program runs where mount_setattr took noexec away
# who refuses it: guard, bprm_check_security (no hook sees mount_setattr, and nothing needs to)
$poke setattr /var 0xe 0; undo "$poke setattr /var 0 0xe"; evil /var; ran "$($evil hello)"

### B18 guard: a setuid program on a volume, its mount weakened, run by a user
# who refuses it: guard, bprm_check_security
$poke setattr /var 0xe 0; undo "$poke setattr /var 0 0xe"; evil /var; chmod 4755 $evil
case $(user $evil hello) in *euid=0*) ;; *) false ;; esac

### B19 guard: a device node on a volume whose mount was weakened
# who refuses it: guard, file_open
$poke setattr /var 0xe 0; undo "$poke setattr /var 0 0xe"; undo 'rm -f /var/b19'
mknod /var/b19 b $(tr : ' ' <"/sys/class/block/$disk/dev") && $poke write /var/b19 $((start * 512))

### B20 guard: unmount the log volume, so that what is below it shows
# who refuses it: guard, sb_umount
umount -l /var/log && undo "mount -o nosuid,nodev,noexec /dev/$logs /var/log"
! host grep -q ' /var/log ' /proc/self/mountinfo

### B22 guard: merge a system extension over /usr
# who refuses it: guard, inode_mkdir, sb_mount and move_mount
need systemd-sysext; . /etc/os-release
undo 'systemd-sysext unmerge; rm -rf /run/extensions'; mkdir -p /run/extensions/evil/usr/lib/extension-release.d /run/extensions/evil/usr/share/evil
printf 'ID=_any\n' >/run/extensions/evil/usr/lib/extension-release.d/extension-release.evil
systemd-sysext merge; host test -d /usr/share/evil

### B23 guard: merge a configuration extension over /etc
# who refuses it: guard, inode_mkdir, sb_mount and move_mount
need systemd-confext
undo 'systemd-confext unmerge; rm -rf /run/confexts'; mkdir -p /run/confexts/evil/etc/extension-release.d /run/confexts/evil/etc/evil
printf 'ID=_any\n' >/run/confexts/evil/etc/extension-release.d/extension-release.evil
systemd-confext merge; host test -d /etc/evil

### B24 guard: merge an extension from the state volume, where systemd looks too
# who refuses it: guard, sb_mount and move_mount
need systemd-sysext
undo 'systemd-sysext unmerge; rm -rf /var/lib/extensions'; mkdir -p /var/lib/extensions/evil/usr/lib/extension-release.d /var/lib/extensions/evil/usr/share/evil
printf 'ID=_any\n' >/var/lib/extensions/evil/usr/lib/extension-release.d/extension-release.evil
systemd-sysext merge; host test -d /usr/share/evil

### B25 guard: another root by pivot_root
# who refuses it: guard, sb_pivotroot
ours
undo 'umount -l /run/b25'; mkdir -p /run/b25; mount -t tmpfs tmpfs /run/b25 || exit; mkdir /run/b25/old
mount --make-private /; mount --make-private /run; mount --make-private /run/b25; undo 'mount --make-shared /; mount --make-shared /run'
$poke pivot /run/b25 /run/b25/old

### B26 guard: the host's root is made a slave of a namespace of the attacker's, who mounts there
# who refuses it: guard, sb_mount and move_mount (mounts that propagate to the host)
undo 'umount -l /opt; mount --make-shared /'
unshare -m --propagation unchanged sh -c 'nsenter -t 1 -m -- mount --make-slave /; mount -t tmpfs tmpfs /opt'
host grep -q ' /opt ' /proc/self/mountinfo

### B27 guard: the same by mount(2) and mount_setattr, with a folder of the attacker's
# who refuses it: guard, sb_mount (mounts that propagate to the host)
undo 'umount -l /opt; mount --make-shared /'
unshare -m --propagation unchanged sh -c "nsenter -t 1 -m -- $poke setattr / 0 0 0x80000; perl -e '\$s = q($PWD); \$t = q(/opt); \$f = q(none); syscall(165, \$s, \$t, \$f, 4096, 0)'"
host grep -q ' /opt ' /proc/self/mountinfo

### B28 guard: a mount in a copied namespace that still propagates
# who refuses it: guard, sb_mount
echo evil >hosts; undo 'umount -l /etc/hosts'
unshare -m --propagation shared mount --bind "$PWD/hosts" /etc/hosts
host grep -q evil /etc/hosts

### B29 guard: a volume is unmounted in a namespace that the host is a slave of
# who refuses it: guard, sb_umount (unmounts that propagate to the host)
undo "grep -q ' /var/log ' /proc/self/mountinfo || mount -o nosuid,nodev,noexec /dev/$logs /var/log"; undo 'mount --make-shared /var'
unshare -m --propagation unchanged sh -c "nsenter -t 1 -m -- $poke setattr /var 0 0 0x80000; umount -l /var/log"
! host grep -q ' /var/log ' /proc/self/mountinfo

### B30 guard: a mount over the agent's own folder in /run
# who refuses it: guard, sb_mount
mkdir a; touch a/evil; [ -d /run/adamant ] || skip 'no /run/adamant'; mount --bind a /run/adamant && undo 'umount -l /run/adamant'
host test -e /run/adamant/evil

### B31 guard: a tmpfs over /run
# who refuses it: guard, sb_mount
mount -t tmpfs tmpfs /run && undo 'umount -l /run'
host test ! -e /run/systemd

### B32 guard: a tmpfs over /run/systemd
# who refuses it: guard, sb_mount
cp -a /run/systemd copy 2>/dev/null; mount -t tmpfs tmpfs /run/systemd && undo 'umount -l /run/systemd'
host sh -c 'mkdir -p /run/systemd/system && touch /run/systemd/system/x.service'

### B33 guard: the root's superblock remounted with other options
# who refuses it: guard, sb_remount
mount -o remount,ro,user_xattr,noacl / && mount -o remount,ro,acl /

### B34 guard: a recursive bind of the host's root, changed, and moved over a folder of the image
# who refuses it: guard, sb_mount
mkdir -p /run/b34; undo 'umount -l /run/b34'; mount --bind /usr /run/b34; mount --bind /run/b34/share /usr/lib/attacks/all && undo 'umount -l /usr/lib/attacks/all'
host test -d /usr/lib/attacks/all/perl5

### B35 verity: over the image in a user namespace of a user, seen by the host
# who refuses it: the kernel, such mounts never propagate to the host
echo evil >hosts; chmod 644 hosts
user unshare --user --map-root-user --mount --propagation unchanged mount --bind "$PWD/hosts" /etc/hosts
host grep -q evil /etc/hosts

### B36 guard slow: a file of the image's is hidden by an automount point
# who refuses it: guard, sb_mount or move_mount
undo 'systemctl stop opt.automount opt.mount'; systemd-mount --automount=yes --no-block tmpfs -t tmpfs /opt 2>&1 || systemd-mount -A -t tmpfs tmpfs /opt
sleep 1; host grep -q ' /opt ' /proc/self/mountinfo

### B37 guard slow: a mount unit, made by systemd for any user
# who refuses it: guard, sb_mount and move_mount
undo 'systemctl stop srv.mount'; systemd-mount -t tmpfs tmpfs /srv; host grep -q ' /srv ' /proc/self/mountinfo

### B38 guard: the volume is mounted a second time, exec, and a program runs there
# who refuses it: guard, bprm_check_security
mkdir -p /run/b38; undo 'umount -l /run/b38; rmdir /run/b38'; mount -o exec,suid,dev "/dev/$var" /run/b38 || exit; evil /var; ran "$(/run/b38/evil-program hello)"

### B39 guard: over /dev/null, where every program's output goes
# who refuses it: guard, sb_mount
: >null; chmod 666 null; mount --bind null /dev/null && undo 'umount -l /dev/null'
host test -f /dev/null

### B40 guard: a whole other root for systemd's soft-reboot, in /run/nextroot
# who refuses it: guard, sb_mount
[ "$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')" -ge 254 ] || skip 'no soft-reboot'
mkdir -p /run/nextroot; undo 'umount -Rl /run/nextroot; rmdir /run/nextroot'; mount -t tmpfs tmpfs /run/nextroot && mkdir -p /run/nextroot/usr /run/nextroot/etc && mount --bind /usr /run/nextroot/usr &&
  touch /run/nextroot/etc/evil && host test -e /run/nextroot/usr/lib/os-release -a -e /run/nextroot/etc/evil

### B41 guard: a path of the image's is unmounted and mounted with the kernel's other file systems, configfs over /opt
# who refuses it: guard, sb_mount
mount -t sysfs sysfs /opt && undo 'umount -l /opt'; host test -d /opt/kernel

