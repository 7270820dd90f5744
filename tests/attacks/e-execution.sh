# Class E: running anything that did not come out of the image.

### E01 verity: a program on the state volume
# who refuses it: noexec
evil /var; ran "$($evil hello)"

### E02 verity: a program on the log volume
# who refuses it: noexec
evil /var/log; ran "$($evil hello)"

### E03 verity: a program in /run
# who refuses it: noexec
evil /run; ran "$($evil hello)"

### E04 verity anyone: a program in /tmp
# who refuses it: noexec
evil /tmp; ran "$($evil hello)"

### E05 verity anyone: a program in /dev/shm
# who refuses it: noexec
evil /dev/shm; ran "$($evil hello)"

### E06 verity: a program in /dev
# who refuses it: noexec
evil /dev; ran "$($evil hello)"

### E07 verity anyone: a program on a volume, by the dynamic loader
# who refuses it: noexec
cp /usr/bin/echo echo; ran "$(/lib64/ld-linux-x86-64.so.2 ./echo 'evil program ran')"

### E08 guard: the same, after the volume's mount was weakened
# who refuses it: guard, mmap_file
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp /usr/bin/echo echo; ran "$(/lib64/ld-linux-x86-64.so.2 ./echo 'evil program ran')"

### E09 guard: a program on a volume that was remounted exec
# who refuses it: guard, sb_mount and bprm_check_security
undo 'mount -o remount,bind,noexec /var'; mount -o remount,bind,exec /var; evil /var; ran "$($evil hello)"

### E10 guard: a program on a new tmpfs
# who refuses it: guard, bprm_check_security
mkdir -p /run/e10; undo 'umount -l /run/e10; rmdir /run/e10'; mount -t tmpfs -o exec tmpfs /run/e10; evil /run/e10; ran "$($evil hello)"

### E11 guard: a program on a tmpfs in a mount namespace of its own
# who refuses it: guard, bprm_check_security
ran "$(unshare -m sh -c "mount -t tmpfs tmpfs /opt && cp $poke /opt/evil && /opt/evil hello")"

### E12 guard: a program on an overlay over /usr, in a namespace of its own
# who refuses it: guard, bprm_check_security
ran "$(unshare -m sh -c "mount -t tmpfs tmpfs /tmp && mkdir -p /tmp/u/bin /tmp/w && cp $poke /tmp/u/bin/evil && mount -t overlay -o lowerdir=/usr,upperdir=/tmp/u,workdir=/tmp/w overlay /usr && /usr/bin/evil hello")"

### E13 guard: a program of the image's, changed by an overlay whose pages come from a volume
# who refuses it: guard, bprm_check_security
mkdir u w; cp $poke u/less; ran "$(unshare -m sh -c "mount -o remount,bind,exec /var; mount -t overlay -o lowerdir=/usr/bin,upperdir=$PWD/u,workdir=$PWD/w overlay /usr/bin && /usr/bin/less hello")"

### E14 guard: a program in a user namespace of a user
# who refuses it: guard, bprm_check_security
ran "$(user unshare --user --map-root-user --mount sh -c "mount -t tmpfs tmpfs /tmp && cp $poke /tmp/evil && /tmp/evil hello")"

### E15 guard anyone: a copy in memory alone, memfd_create and execveat
# who refuses it: guard, bprm_check_security
ran "$($poke memfd $poke)"

### E16 verity anyone: a file without a name on a volume, O_TMPFILE
# who refuses it: noexec
ran "$($poke tmpfile "$PWD" $poke)"

### E17 guard: a file without a name, after the volume's mount was weakened
# who refuses it: guard, bprm_check_security
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; ran "$($poke tmpfile "$PWD" $poke)"

### E18 verity: a setuid program on a volume, run by a user
# who refuses it: nosuid, noexec
evil /var; chmod 4755 $evil; case $(user $evil hello) in *euid=0*) ;; *) false ;; esac

### E19 verity anyone: a library of the attacker's in LD_PRELOAD
# who refuses it: noexec
cp $here/evil.so . && case $(LD_PRELOAD=$PWD/evil.so /usr/bin/true) in *'evil library'*) ;; *) false ;; esac

### E20 guard: a library in LD_PRELOAD, after the volume's mount was weakened
# who refuses it: guard, mmap_file
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp $here/evil.so . && case $(LD_PRELOAD=$PWD/evil.so /usr/bin/true) in *'evil library'*) ;; *) false ;; esac

### E21 guard: a library in LD_AUDIT
# who refuses it: guard, mmap_file
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp $here/evil.so . && case $(LD_AUDIT=$PWD/evil.so /usr/bin/true) in *'evil library'*) ;; *) false ;; esac

### E22 guard: a changed libc by LD_LIBRARY_PATH
# who refuses it: guard, mmap_file
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp /lib/x86_64-linux-gnu/libc.so.6 . && case $(LD_LIBRARY_PATH=$PWD perl -e 'print grep { m{/var/.*libc} } do { open F, "<", "/proc/self/maps"; <F> }') in *libc*) ;; *) false ;; esac

### E23 verity: a library in /etc/ld.so.preload
# who refuses it: EROFS
echo /var/tmp/evil.so >/etc/ld.so.preload

### E24 guard: a library loaded by perl, dlopen
# who refuses it: guard, mmap_file
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp $here/evil.so . && case $(perl -e 'require DynaLoader; DynaLoader::dl_load_file("./evil.so", 0)') in *'evil library'*) ;; *) false ;; esac

### E25 verity anyone: a library loaded by perl from a volume as it is
# who refuses it: noexec
cp $here/evil.so . && case $(perl -e 'require DynaLoader; DynaLoader::dl_load_file("./evil.so", 0)') in *'evil library'*) ;; *) false ;; esac

### E26 verity anyone: a script on a volume, executed
# who refuses it: noexec
printf '#!/bin/sh\necho evil program ran\n' >script; chmod 755 script; ran "$(./script)"

### E27 guard: a script on a volume whose mount was weakened, executed
# who refuses it: guard, bprm_check_security
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; printf '#!/bin/sh\necho evil program ran\n' >script; chmod 755 script; ran "$(./script)"

### E28 guard anyone: a script on a volume, given to the image's shell
# who refuses it: guard, file_open, with scripts = "refuse"
printf 'echo evil program ran\n' >script; ran "$(sh script)"

### E28b guard anyone: a script in /run, in /tmp, in /dev/shm and in /dev
# who refuses it: guard, file_open, with scripts = "refuse"
for d in /run /tmp /dev/shm /dev; do undo "rm -f $d/e28b"; printf 'echo evil program ran\n' >$d/e28b; ran "$(sh $d/e28b)" && exit 0; done; false

### E28c guard anyone: a script in memory alone, by its descriptor
# who refuses it: guard, file_open, with scripts = "refuse"
ran "$(perl -e '$n = "x"; $m = syscall(319, $n, 0); open F, ">&=", $m; $| = 1; syswrite F, "print qq(evil program ran\n)"; do "/proc/self/fd/$m"')"

### E28d guard anyone: a script through a symbolic link, a hard link and the root of a process
# who refuses it: guard, file_open, with scripts = "refuse"
printf 'echo evil program ran\n' >script; ln script hard; ln -s "$PWD/hard" link; for s in link "/proc/1/root$PWD/hard"; do ran "$(sh $s)" && exit 0; done; false

### E28e guard anyone: a file that a shell takes in: dot, its standard input, ENV
# who refuses it: guard, file_open, with scripts = "refuse"
printf 'echo evil program ran\n' >script; ran "$(sh -c '. ./script')$(sh <script)$(sh /dev/stdin <script)$(ENV=$PWD/script sh -i -c : 2>/dev/null)"

### E28f guard anyone: a file given to awk
# who refuses it: guard, file_open, with scripts = "refuse"
printf 'BEGIN { system("echo evil program ran") }\n' >script; ran "$(awk -f script)"

### E28g guard anyone: the shell started by the dynamic loader, so that it is the loader that runs
# who refuses it: guard, file_open, with scripts = "refuse"
printf 'echo evil program ran\n' >script; ran "$(/lib64/ld-linux-x86-64.so.2 /bin/dash script)"

### E28h guard anyone: the shell by another name: a bind mount of its file
# who refuses it: guard, file_open, with scripts = "refuse"
printf 'echo evil program ran\n' >script; : >cat; ran "$(unshare -m sh -c "mount --bind /bin/dash cat; exec ./cat script")"

### E28i guard anyone: the shell through an overlay
# who refuses it: guard, bprm_check_security
printf 'echo evil program ran\n' >script; mkdir m; ran "$(unshare -m sh -c "mount -t overlay -o lowerdir=/usr/bin:/usr/sbin overlay m; exec m/dash script")"

### E28j guard anyone: a script that somebody else opened, by the name of its descriptor
# who refuses it: guard, file_open, with scripts = "refuse"
printf 'echo evil program ran\n' >script; ran "$(flock script sh /proc/self/fd/3)"

### E28k open anyone: the same, read by the descriptor itself
# who refuses it: nobody: what was opened by another program is only read
printf 'echo evil program ran\n' >script; ran "$(flock script sh -c 'exec sh <&3')"

### E28l open anyone: a script through a pipe, and as the words of a command
# who refuses it: nobody: a pipe and words are nobody's file. Who can write these can write what is in the script
printf 'echo evil program ran\n' >script; ran "$(cat script | sh)$(sh -c "$(cat script)")"

### E28m open anyone: a script given to an interpreter that the definition excepts
# who refuses it: nobody: [seal.allow] scripts names bash, and status says so
printf 'echo evil program ran\n' >script; ran "$(bash script)"

### E28n open anyone: commands in a file given to a program that works on data, sed
# who refuses it: nobody: sed is no interpreter here, see "How far refused scripts reach"
printf '1e echo evil program ran\n' >script; ran "$(echo | sed -f script)"

### E29 guard anyone: a script given to the image's perl, and a module
# who refuses it: guard, file_open, with scripts = "refuse"
printf 'print "evil program ran\\n"; 1\n' >Evil.pm; ran "$(perl Evil.pm)$(perl -e 'do "./Evil.pm"')$(perl -I. -MEvil -e 1)$(PERL5LIB=$PWD perl -MEvil -e 1)"

### E29b open anyone: a program on perl's command line
# who refuses it: nobody, as E28l; with perl's system calls it reaches what every attack here reaches
ran "$(perl -e 'print "evil program ran\n"')"

### E30 guard anyone: memory that is writable and executable
# who refuses it: guard, mmap_file
$poke memory anonymous

### E31 guard anyone: shared memory that is writable and executable
# who refuses it: guard, mmap_file
$poke memory shared

### E32 guard anyone: memory that is written, then made executable
# who refuses it: guard, file_mprotect
$poke memory mprotect

### E33 guard anyone: the same by pkey_mprotect
# who refuses it: guard, file_mprotect
$poke memory pkey

### E34 guard anyone: the heap made executable
# who refuses it: guard, file_mprotect
$poke memory heap

### E35 guard anyone: the stack made executable
# who refuses it: guard, file_mprotect
$poke memory stack

### E36 guard slow anyone: the stack made executable as it grows
# who refuses it: guard, file_mprotect
$poke memory grow-stack

### E37 guard anyone: a memfd mapped executable
# who refuses it: guard, mmap_file
$poke memory memfd

### E38 verity anyone: secret memory made executable
# who refuses it: the kernel; guard, file_mprotect
$poke memory memfd-secret

### E39 guard anyone: System V shared memory, SHM_EXEC
# who refuses it: guard, mmap_file
$poke memory shm

### E40 guard anyone: readable memory is executable by personality
# who refuses it: guard, mmap_file
$poke memory personality

### E41 guard anyone: the heap that grows is executable by personality
# who refuses it: guard, mmap_addr
$poke memory brk

### E42 guard anyone: remap_file_pages with that personality
# who refuses it: guard, mmap_file
$poke memory remap

### E43 guard: pages filled by userfaultfd after they were made executable
# who refuses it: guard, file_mprotect
$poke memory uffd

### E44 guard: huge pages
# who refuses it: guard, mmap_file
was=$(cat /proc/sys/vm/nr_hugepages); undo "echo $was >/proc/sys/vm/nr_hugepages"; echo 4 >/proc/sys/vm/nr_hugepages 2>/dev/null; $poke memory huge

### E45 guard anyone: a private page of the image's, written, then executable
# who refuses it: guard, file_mprotect
$poke memory private /usr/bin/dash

### E46 guard anyone: a private page of the image's, writable and executable
# who refuses it: guard, mmap_file
$poke memory private-rwx /usr/bin/dash

### E47 guard anyone: a written page of the image's, executed by a child that did not write
# who refuses it: guard, file_mprotect
$poke memory fork /usr/bin/dash

### E48 guard anyone: a written page moved between clean ones
# who refuses it: guard, file_mprotect
$poke memory mremap /usr/bin/dash

### E49 guard anyone: executable pages of the image's written through /proc/self/mem
# who refuses it: guard, file_open
$poke memory self /usr/bin/dash

### E50 verity anyone: executable pages written by process_vm_writev to oneself
# who refuses it: the kernel
$poke memory writev /usr/bin/dash

### E51 guard: executable pages written by a debugger
# who refuses it: guard, ptrace_traceme; lockdown (ptrace_scope 3)
$poke memory ptrace /usr/bin/dash

### E52 guard: code in a file on a volume, mapped executable
# who refuses it: guard, mmap_file
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; printf '\270*\000\000\000\303' >code; $poke memory map code

### E53 guard: code in a file on a volume, mapped, then executable
# who refuses it: guard, file_mprotect
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; printf '\270*\000\000\000\303' >code; $poke memory map-later code

### E54 guard: code in a file through an overlay, mapped, then executable
# who refuses it: guard, file_mprotect
printf '\270*\000\000\000\303' >code; mkdir u w; cp code u/; unshare -m sh -c "mount -o remount,bind,exec /var; mount -t overlay -o lowerdir=/usr/share,upperdir=$PWD/u,workdir=$PWD/w overlay /opt && $poke memory map-later /opt/code"

### E55 guard: another dynamic loader for the image's programs, in a folder that is their root
# who refuses it: guard, mmap_file
undo "umount -l $PWD/c/usr"; $poke setattr /var 8 0; undo "$poke setattr /var 0 8"; mkdir -p c/usr c/lib64 && mount --bind /usr c/usr 2>/dev/null; cp /lib64/ld-linux-x86-64.so.2 c/lib64/; ln -s usr/lib c/lib; [ -e c/usr/bin ] || unshare -m true
ran "$(unshare -m sh -c "mount --bind /usr '$PWD/c/usr'; exec chroot '$PWD/c' /usr/bin/echo evil program ran")"

### E56 guard: a container: a root on the volume, with namespaces of its own
# who refuses it: guard, bprm_check_security
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; mkdir -p c/bin; cp $poke c/bin/evil; ran "$(unshare -mpiunC --fork chroot "$PWD/c" /bin/evil hello)"

### E57 guard: systemd starts a program of a volume, systemd-run
# who refuses it: noexec; guard, bprm_check_security
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; evil /var; ran "$(timeout 9 systemd-run -q --pipe --wait $evil hello)"

### E58 guard: systemd starts a program in a root of the attacker's, RootDirectory=
# who refuses it: guard, bprm_check_security
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; mkdir -p c/usr c/etc c/proc c/sys c/dev c/run c/tmp c/var; cp $poke c/evil; ran "$(timeout 9 systemd-run -q --pipe --wait -p "RootDirectory=$PWD/c" /evil hello)"

### E59 guard: systemd starts a program from a disk image, RootImage=
# who refuses it: guard, file_open, sb_kern_mount and bprm_check_security
cp $here/evil.img . ; ran "$(timeout 9 systemd-run -q --pipe --wait -p "RootImage=$PWD/evil.img" /program hello)"

### E60 guard: the volume is executable for one unit, ExecPaths= and MountAPIVFS=
# who refuses it: guard, bprm_check_security
evil /var; ran "$(timeout 9 systemd-run -q --pipe --wait -p ExecPaths=/var -p NoExecPaths=/run $evil hello)"

### E61 open: systemd starts a shell of the image's with words of the attacker's
# who refuses it: nobody, as E28: the program is the image's, and who asked is root
ran "$(timeout 9 systemd-run -q --pipe --wait /bin/sh -c 'echo evil program ran')"

### E62 guard: LD_PRELOAD for all services, by the manager's environment
# who refuses it: guard, mmap_file
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp $here/evil.so . ; chmod 755 . ; undo 'systemctl unset-environment LD_PRELOAD'; systemctl set-environment "LD_PRELOAD=$PWD/evil.so"
case $(timeout 9 systemd-run -q --pipe --wait /usr/bin/true) in *'evil library'*) ;; *) false ;; esac

### E63 guard slow: a unit dropped in /run/systemd/system
# who refuses it: guard, inode_create
undo 'rm -f /run/systemd/system/evil.service; systemctl daemon-reload'; mkdir -p /run/systemd/system; printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >/run/systemd/system/evil.service; systemctl daemon-reload; systemctl start evil; [ -e "$mark" ]

### E64 guard slow: a drop-in that changes a unit of the image's
# who refuses it: guard, inode_mkdir
d=/run/systemd/system/systemd-journald.service.d; undo "rm -rf $d; systemctl daemon-reload"; mkdir -p $d; printf '[Service]\nEnvironment=EVIL=1\n' >$d/evil.conf; systemctl daemon-reload; systemctl show -P Environment systemd-journald | grep -q EVIL

### E65 guard slow: a unit of a volume, linked by systemctl
# who refuses it: guard, inode_symlink
printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >evil65.service; undo 'rm -f /run/systemd/system/evil65.service; systemctl daemon-reload'; systemctl link --runtime "$PWD/evil65.service"; systemctl start evil65; [ -e "$mark" ]

### E66 guard slow: units of a volume, by a mount over /run/systemd/system
# who refuses it: guard, sb_mount
cd /tmp && mkdir -p units /run/systemd/system 2>/dev/null; undo 'rm -rf /tmp/units'; cp -a /run/systemd/system/. units/ 2>/dev/null; printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >units/evil66.service
undo 'umount -l /run/systemd/system; systemctl daemon-reload'; mount --bind units /run/systemd/system; systemctl daemon-reload; systemctl start evil66; [ -e "$mark" ]

### E67 guard slow: units in a folder that was made elsewhere in /run and renamed to /run/systemd/transient's neighbour
# who refuses it: guard, inode_rename
undo 'rmdir /run/systemd/system.attached /run/e67 2>/dev/null; rm -rf /run/e67 /run/systemd/system.attached; systemctl daemon-reload'; mkdir -p /run/e67; printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >/run/e67/evil67.service
mv -T /run/e67 /run/systemd/system.attached; systemctl daemon-reload; systemctl start evil67; [ -e "$mark" ]

### E68 guard slow: all of /run/systemd renamed away and replaced
# who refuses it: guard, inode_rename
cp -a /run/systemd /run/e68 2>/dev/null; mkdir -p /run/e68/system; printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >/run/e68/system/evil68.service
undo 'rm -rf /run/e68; systemctl daemon-reload'; $poke exchange /run/systemd /run/e68 && undo "$poke exchange /run/systemd /run/e68"; timeout 5 kill -HUP 1; sleep 3; systemctl start evil68; [ -e "$mark" ] || [ -e /run/systemd/system/evil68.service ]

### E69 guard slow: a unit by a hard link, made elsewhere in /run
# who refuses it: guard, inode_link
printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >/run/evil69.service; undo 'rm -f /run/evil69.service /run/systemd/system/evil69.service; systemctl daemon-reload'; ln /run/evil69.service /run/systemd/system/evil69.service; systemctl daemon-reload; systemctl start evil69; [ -e "$mark" ]

### E70 guard slow: a unit by io_uring
# who refuses it: guard, inode_symlink
printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >evil70.service; undo 'rm -f /run/systemd/system/evil70.service; systemctl daemon-reload'; $poke uring-path symlink "$PWD/evil70.service" /run/systemd/system/evil70.service; systemctl daemon-reload; systemctl start evil70; [ -e "$mark" ]

### E71 guard slow: a unit written by one of systemd's generators, told so by its environment
# who refuses it: guard, inode_create
g=/usr/lib/systemd/system-generators/systemd-run-generator; need $g; undo 'rm -rf /run/systemd/generator.early/kernel-command-line.service /run/systemd/transient/kernel-command-line.service; systemctl daemon-reload'
SYSTEMD_PROC_CMDLINE="systemd.run=\"/bin/touch $mark\" systemd.run_success_action=none systemd.run_failure_action=none" SYSTEMD_IN_INITRD=0 $g /run/systemd/system /run/systemd/system /run/systemd/system; undo 'rm -rf /run/systemd/system/kernel-command-line.service /run/systemd/system/default.target*'
systemctl daemon-reload; timeout 5 systemctl start --no-block kernel-command-line.service; sleep 2; [ -e "$mark" ] || ls /run/systemd/system/kernel-command-line.service

### E72 guard slow: a unit in a folder that a generator's run left, systemd's own generator folder
# who refuses it: guard, inode_create
printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >evil72.service; undo 'rm -f /run/systemd/generator/evil72.service; systemctl daemon-reload'; cp evil72.service /run/systemd/generator/ && systemctl start evil72; [ -e "$mark" ] || [ -e /run/systemd/generator/evil72.service ]

### E73 verity slow: a generator in /run/systemd/system-generators
# who refuses it: noexec; guard, inode_mkdir
undo 'rm -rf /run/systemd/system-generators'; mkdir -p /run/systemd/system-generators && printf '#!/bin/sh\ntouch %s\n' "$mark" >/run/systemd/system-generators/evil && chmod 755 /run/systemd/system-generators/evil; systemctl daemon-reload; [ -e "$mark" ]

### E74 guard: a rule for udev in /run, that starts a program
# who refuses it: guard, inode_create
undo 'rm -f /run/udev/rules.d/99-evil.rules; udevadm control --reload'; mkdir -p /run/udev/rules.d; printf 'KERNEL=="null", RUN+="/bin/touch %s"\n' "$mark" >/run/udev/rules.d/99-evil.rules; udevadm control --reload; udevadm trigger -c change /dev/null; udevadm settle -t 5; sleep 1; [ -e "$mark" ] || [ -e /run/udev/rules.d/99-evil.rules ]

### E75 guard: a command for modprobe in /run/modprobe.d
# who refuses it: guard, inode_create
undo 'rm -f /run/modprobe.d/evil.conf'; mkdir -p /run/modprobe.d; printf 'install evil75 /bin/touch %s\n' "$mark" >/run/modprobe.d/evil.conf; modprobe evil75; [ -e "$mark" ] || [ -e /run/modprobe.d/evil.conf ]

### E76 guard: files for systemd-tmpfiles in /run/tmpfiles.d, at every start of it
# who refuses it: guard, inode_create
undo 'rm -f /run/tmpfiles.d/evil.conf'; mkdir -p /run/tmpfiles.d; printf 'f %s\n' "$mark" >/run/tmpfiles.d/evil.conf; systemd-tmpfiles --create; [ -e "$mark" ]

### E77 guard slow: configuration of PID 1 itself in /run/systemd/system.conf.d
# who refuses it: guard, inode_mkdir
undo 'rm -rf /run/systemd/system.conf.d; systemctl daemon-reload'; mkdir -p /run/systemd/system.conf.d; printf '[Manager]\nDefaultEnvironment=EVIL=1\n' >/run/systemd/system.conf.d/evil.conf; systemctl daemon-reload; systemctl show -P DefaultEnvironment 2>/dev/null | grep -q EVIL || [ -e /run/systemd/system.conf.d/evil.conf ]

### E78 guard: a service for D-Bus in /run, that starts a program as root
# who refuses it: noexec; guard, bprm_check_security
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; mkdir -p /run/dbus-1/system-services; undo 'rm -rf /run/dbus-1/system-services'; chmod 755 . ; printf '#!/bin/sh\ntouch %s\n' "$mark" >evil; chmod 755 evil; chmod 777 .
printf '[D-BUS Service]\nName=org.evil\nUser=root\nExec=%s\n' "$PWD/evil" >/run/dbus-1/system-services/org.evil.service; busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig 2>/dev/null; timeout 5 busctl call org.evil / org.evil evil; [ -e "$mark" ]

### E79 guard: a program by a descriptor that was opened where it could run
# who refuses it: guard, bprm_check_security
ran "$(unshare -m sh -c "mount -t tmpfs tmpfs /opt && cp $poke /opt/evil && exec flock /opt/evil perl -e '\$e = \"\"; \$a = pack(\"QQQ\", unpack(\"Q\", pack(\"p\", \"x\")), unpack(\"Q\", pack(\"p\", \"hello\")), 0); \$v = pack(\"Q\", 0); syscall(322, 3, \$e, \$a, \$v, 0x1000); print \"\$!\\\\n\"'")"

### E80 guard: a program through a PID's root in another namespace
# who refuses it: guard, bprm_check_security
unshare -m sh -c "mount -t tmpfs tmpfs /opt && cp $poke /opt/evil && sleep 8" & sleep 2; child=$(pgrep -f 'sleep 8' 2>/dev/null | head -n 1); child=${child:-$!}; ran "$("/proc/$child/root/opt/evil" hello)"

### E81 guard: an interpreter for scripts of the image's, ELF interpreter of a copied program
# who refuses it: guard, bprm_check_security and mmap_file
$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; cp /usr/bin/echo echo; ran "$(./echo evil program ran)"

### E83 open anyone: a library of the image's in LD_PRELOAD of one's own programs
# who refuses it: nobody: both are the image's
case $(LD_PRELOAD=$(ls /usr/lib/x86_64-linux-gnu/libz.so.1 /usr/lib/x86_64-linux-gnu/libselinux.so.1 2>/dev/null | head -n 1) perl -e 'print grep { m{libz|libselinux} } do { open F, "<", "/proc/self/maps"; <F> }') in *lib*) ;; *) false ;; esac

### E84 guard slow: a unit of the image's is masked until the next start, by systemd itself
# who refuses it: guard, inode_symlink
undo 'systemctl unmask --runtime systemd-timesyncd'; systemctl mask --runtime systemd-timesyncd; [ -L /run/systemd/system/systemd-timesyncd.service ]

### E85 verity slow: a unit of the image's is changed by systemd itself, set-property with more than resources
# who refuses it: systemd takes resources alone
undo 'systemctl revert systemd-timesyncd'; systemctl set-property --runtime systemd-timesyncd 'ExecStart=/bin/touch /run/e85' && systemctl show -P ExecStart systemd-timesyncd | grep -q e85
