# Class H: exhaustion and confusion.

### H01 open: the state volume filled up
# who refuses it: nobody: it is writable. The image and the agent do not need it
fallocate -l "$(df --output=avail -B1 /var | tail -n 1)" fill && ! dd if=/dev/zero of=more bs=1M 2>/dev/null; r=$?; rm -f fill more; [ $r = 0 ]

### H02 verity slow: with no room in /run, the agent's report is lost
# who refuses it: the report was written before
[ -d /run/adamant ] || skip 'no /run/adamant'; fallocate -l "$(df --output=avail -B1 /run | tail -n 1)" /run/fill || exit; undo 'rm -f /run/fill'; ! adamant-agent status >/dev/null 2>&1

### H03 guard: the agent's report is changed
# who refuses it: guard, file_open and inode_unlink
f=$(find /run/adamant -type f 2>/dev/null | head -n 1); need "${f:-none}"; cp -a "$f" was; undo "cp -a was $f"; echo evil >>"$f" && grep -q evil "$f"

### H04 guard: the agent's report is replaced
# who refuses it: guard, inode_rename
f=$(find /run/adamant -type f 2>/dev/null | head -n 1); need "${f:-none}"; cp -a "$f" was; undo "cp -a was $f"; undo 'rm -f /run/evil'; echo evil >/run/evil; mv /run/evil "$f" && grep -q evil "$f"

### H05 guard: the agent's folder is renamed
# who refuses it: guard, inode_rename
[ -d /run/adamant ] || skip 'no /run/adamant'; mv /run/adamant /run/evil-folder && undo 'mv /run/evil-folder /run/adamant'; [ ! -d /run/adamant ]

### H06 guard: the agent's report is truncated
# who refuses it: guard, path_truncate
f=$(find /run/adamant -type f 2>/dev/null | head -n 1); need "${f:-none}"; cp -a "$f" was; undo "cp -a was $f"; perl -e 'exit(truncate($ARGV[0], 0) ? 0 : 1)' "$f" && [ ! -s "$f" ]

### H07 guard: the agent's report is written by its handle
# who refuses it: guard, file_open
f=$(find /run/adamant -type f 2>/dev/null | head -n 1); need "${f:-none}"; cp -a "$f" was; undo "cp -a was $f"; $poke handle "$f" 1 evil

### H08 guard: the state volume is made read-only for everybody
# who refuses it: guard, sb_remount
undo 'mount -o remount,rw /var'; mount -o remount,ro /var && ! touch /var/x 2>/dev/null

### H09 guard: the state volume is frozen
# who refuses it: guard, file_ioctl
undo 'fsfreeze -u /var/log'; fsfreeze -f /var/log

### H11 guard: a volume's file system is given another label, on its device or through its mount
# who refuses it: guard, file_open and file_ioctl
need tune2fs; tune2fs -L evil "/dev/$logs" >/dev/null 2>&1 && undo "tune2fs -L logs /dev/$logs"; tune2fs -l "/dev/$logs" | grep -q 'volume name:.*evil'

### H12 open: logs are deleted
# who refuses it: nobody: they are data on a writable volume; send them elsewhere
echo x >/var/log/evil && rm /var/log/evil

### H13 open: lies in the journal
# who refuses it: nobody: everyone may log; the kernel's own messages and the agent's are marked with who said them
echo 'evil says all is well' | systemd-cat -t adamant-agent

### H14 guard: a volume is hidden by another file system
# who refuses it: guard, sb_mount
mount -t tmpfs tmpfs /var/log && undo 'umount -l /var/log'; host sh -c '[ "$(stat -f -c %T /var/log)" = tmpfs ]'

### H15 guard: a volume of one's own making over the state volume
# who refuses it: guard, sb_mount and sb_kern_mount
need /dev/nvme0n1; mount -o ro,noload /dev/nvme0n1 /var/log && undo 'umount -l /var/log'; host test -e /var/log/program

### H16 guard: the clock set back a year
# who refuses it: guard, settime
then=$(date +%s); undo 'date -s @$then >/dev/null'; date -s "@$((then - 31536000 * 30))" >/dev/null; [ "$(date +%s)" -lt $((then - 1000000)) ]

### H17 guard: the machine identity on the state volume is changed
# who refuses it: guard, file_open
f=/var/.adamant/machine-id; need $f; cp $f was; undo "cat was >$f"; echo 0123456789abcdef0123456789abcdef >$f; grep -q 0123456789abcdef $f

### H22 guard: another machine identity in its place
# who refuses it: guard, inode_rename and inode_unlink
f=/var/.adamant/machine-id; need $f; cp $f was; undo "cat was >$f"; echo 0123456789abcdef0123456789abcdef >/var/h22; undo 'rm -f /var/h22'; mv -f /var/h22 $f || { rm -f $f; [ ! -e $f ]; }

### H23 guard: another folder in place of the agent's on the state volume
# who refuses it: guard, inode_rename
need /var/.adamant; undo 'rmdir /var/.adamant; mv /var/h23 /var/.adamant'; mv /var/.adamant /var/h23 && mkdir /var/.adamant

### H24 guard: the machine identity by its handle, and by another name
# who refuses it: guard, file_open and inode_link
f=/var/.adamant/machine-id; need $f; cp $f was; undo "cat was >$f"; echo 2 >/proc/sys/vm/drop_caches; $poke handle $f 1 evil && exit; undo 'rm -f /var/h24'; ln $f /var/h24 && echo evil >/var/h24 && grep -q evil $f

### H25 guard: the agent's report by another name, a hard link
# who refuses it: guard, inode_link
f=$(find /run/adamant -type f 2>/dev/null | head -n 1); need "${f:-none}"; cp -a "$f" was; undo "cat was >$f; rm -f /run/h25"; ln "$f" /run/h25 && echo evil >/run/h25 && grep -q evil "$f"

### H18 guard: the agent is told another policy, by its command line and environment
# who refuses it: guard: the programs' decisions are frozen
$poke bpf maps

### H19 open anyone: the guard's events flooded, until one is lost
# who refuses it: nobody: the counters go on, and status tells them
i=0; while [ $i -lt 700 ]; do true 2>/dev/null >/proc/sys/kernel/modules_disabled; i=$((i + 1)); done; true

### H20 open anyone: the machine switched off, restarted or made to panic
# who refuses it: nobody: it then starts from the image again
# reboot(2) with LINUX_REBOOT_CMD_CAD_OFF: the same question of the kernel's as for switching off, and nothing happens.
perl -e 'exit(syscall(169, 0xfee1dead, 672274793, 0) == 0 ? 0 : 1)'

### H21 guard last: the disk below the image is removed from the kernel
# who refuses it: guard, file_open
f=/sys/class/block/$disk/device/delete; need "$f"; exec 3>"$f"
