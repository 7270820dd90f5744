# Class A: writes to the image.

### A01 verity: create a file in /usr
# who refuses it: EROFS, a file system that has no writes
touch /usr/x && [ -e /usr/x ]

### A02 verity: append to /etc/passwd
# who refuses it: EROFS
echo 'evil::0:0::/:/bin/sh' >>/etc/passwd && grep -q '^evil:' /etc/passwd

### A03 verity: delete a program
# who refuses it: EROFS
cp -a /usr/bin/less . 2>/dev/null; rm -f /usr/bin/less; [ ! -e /usr/bin/less ]

### A04 verity: make the shell setuid
# who refuses it: EROFS
chmod u+s /usr/bin/dash && [ -u /usr/bin/dash ]

### A05 verity: remount / writable
# who refuses it: EROFS (the superblock can't be writable)
mount -o remount,rw / && touch /etc/x && [ -e /etc/x ]

### A06 verity: reconfigure the root's superblock with fspick and fsconfig
# who refuses it: EROFS
$poke reconfigure / rw && touch /etc/x && [ -e /etc/x ]

### A07 verity: take the mount's read-only flag away with mount_setattr
# who refuses it: EROFS
$poke setattr / 1 0; touch /etc/x && [ -e /etc/x ]

### A08 verity: bind the root elsewhere, and make that writable
# who refuses it: EROFS
mkdir -p /run/a08; undo 'rmdir /run/a08'; mount --bind / /run/a08 && undo 'umount -l /run/a08'; mount -o remount,bind,rw /run/a08; touch /run/a08/etc/x && [ -e /etc/x ]

### A09 verity: rename /usr/bin
# who refuses it: EROFS
mv /usr/bin /usr/nib

### A10 verity: exchange two programs with renameat2
# who refuses it: EROFS
$poke exchange /usr/bin/less /usr/bin/dash

### A11 verity: give a program capabilities, with an extended attribute
# who refuses it: EROFS
perl -e '$n = "security.capability"; $v = pack("V5", 0x02000001, 0xffffffff, 0, 0xff, 0); $p = "/usr/bin/perl"; exit(syscall(188, $p, $n, $v, length $v, 0) == 0 ? 0 : do { print "$!\n"; 1 })'

### A12 verity: take a file's flags with FS_IOC_SETFLAGS
# who refuses it: EROFS, no such ioctl
$poke ioctl /etc/passwd 0x40086602 @00000000

### A13 verity: open /etc/shadow for writing by its handle
# who refuses it: EROFS
$poke handle /etc/shadow 1 evil

### A14 verity: write to a program with io_uring
# who refuses it: EROFS
$poke uring /usr/bin/less 0 evil

### A15 verity: delete with io_uring
# who refuses it: EROFS
$poke uring-path unlink /usr/bin/less

### A16 verity: truncate /etc/fstab
# who refuses it: EROFS
perl -e 'exit(truncate("/etc/hosts", 0) ? 0 : do { print "$!\n"; 1 })'

### A17 verity: a hard link in /etc
# who refuses it: EROFS
ln /usr/bin/dash /etc/x

### A18 verity: a device node in /etc
# who refuses it: EROFS
mknod /etc/x c 1 3

### A19 verity: write through PID 1's root
# who refuses it: EROFS
touch /proc/1/root/etc/x && [ -e /etc/x ]

### A20 verity: a shared, writable mapping of a program
# who refuses it: EROFS
perl -e 'open(F, "+<", "/usr/bin/less") or do { print "$!\n"; exit 1 }; syscall(9, 0, 4096, 3, 1, fileno(F), 0) > 0 or exit 1'

### A21 verity: change a program's time and owner
# who refuses it: EROFS
chown 65534 /usr/bin/less; touch -d @0 /usr/bin/less && [ "$(stat -c %Y /usr/bin/less)" = 0 ]

### A22 verity anyone: a pipe that was spliced from a page of the image's is written to (CVE-2022-0847)
# who refuses it: the kernel, since 5.17
perl -e 'open F, "<", "/etc/hosts" or exit 1; pipe R, W; $page = "x" x 4096; for (1..16) { syswrite W, $page } for (1..16) { sysread R, $page, 4096 }
  $offset = pack "q", 1; syscall(275, fileno(F), $offset, fileno(W), 0, 1, 0) == 1 or exit 1; syswrite W, "evil"; close F; open F, "<", "/etc/hosts"; local $/; exit(index(<F>, "evil") >= 0 ? 0 : 1)'

### A23 verity: write to the root's file system where it is mounted below /proc
# who refuses it: EROFS
exec 3</etc/hosts; echo evil >/proc/self/fd/3

### A24 verity: allocate and punch holes in a program
# who refuses it: EROFS
fallocate -p -o 0 -l 4096 /usr/bin/less
