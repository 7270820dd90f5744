# Class C: the disk below the verity device, and other disks. What is written is what is there already.

### C01 verity: write to the partition of the root's blocks
# who refuses it: BLKROSET
$poke write "/dev/$data" 4096

### C02 verity: write to the partition of the hash tree
# who refuses it: BLKROSET
$poke write "/dev/$tree" 4096

### C03 verity: the same partition by another device node
# who refuses it: BLKROSET
undo 'rm -f /dev/c03'; mknod /dev/c03 b $(tr : ' ' <"/sys/class/block/$data/dev") && $poke write /dev/c03 4096

### C04 verity: write to the verity device
# who refuses it: device mapper, read-only
$poke write "/dev/dm-${root#*:}" 4096

### C05 verity: write to the partition with io_uring
# who refuses it: BLKROSET
$poke uring "/dev/$data" 4096

### C06 guard: write to the root's blocks through the whole disk
# who refuses it: guard, file_open
$poke write "/dev/$disk" $((start * 512 + 4096))

### C07 guard: the same with io_uring
# who refuses it: guard, file_open
$poke uring "/dev/$disk" $((start * 512 + 4096))

### C08 guard: the whole disk by another device node
# who refuses it: guard, file_open
undo 'rm -f /dev/c08'; mknod /dev/c08 b $(tr : ' ' <"/sys/class/block/$disk/dev") && $poke write /dev/c08 $((start * 512 + 4096))

### C09 guard: opened for reading, then opened again for writing through /proc
# who refuses it: guard, file_open
flock "/dev/$disk" $poke write /proc/self/fd/3 $((start * 512 + 4096))

### C10 guard: a loop device over the whole disk
# who refuses it: guard, file_open and file_ioctl
need losetup /dev/loop-control; loop=$(losetup -f --show -o $((start * 512)) "/dev/$disk") && undo "losetup -d $loop"; [ -n "$loop" ] && $poke write "$loop" 4096

### C11 verity: device mapper's linear target over the whole disk
# who refuses it: the kernel, while a partition is in use; guard, file_ioctl
undo "$poke dm remove c11"; $poke dm create c11 1024 linear "/dev/$disk $((start + 8))" && dev=$(readlink -f /sys/class/block/dm-*/dm/name | while read -r f; do grep -qx c11 "$f" && basename "${f%/dm/name}"; done) && {
  undo 'rm -f /dev/c11'; mknod /dev/c11 b $(tr : ' ' <"/sys/class/block/$dev/dev"); $poke write /dev/c11 0; }

### C12 guard: make the partition writable with BLKROSET, then write
# who refuses it: guard, file_ioctl
undo "blockdev --setro /dev/$data"; blockdev --setrw "/dev/$data" && $poke write "/dev/$data" 4096

### C13 guard: delete and add a partition, as BLKPG aliases
# who refuses it: guard, file_ioctl
n=$(cat "/sys/class/block/$esp/partition"); s=$(($(cat "/sys/class/block/$esp/start") * 512)); l=$(($(cat "/sys/class/block/$esp/size") * 512))
awk '{ print $3 }' /proc/self/mountinfo | grep -qx "$(cat "/sys/class/block/$esp/dev")" && skip 'the ESP is mounted'
$poke blkpg "/dev/$disk" delete "$n" && { $poke blkpg "/dev/$disk" add "$n" "$s" "$l"; true; }

### C14 verity: a partition added over free space and the root's blocks
# who refuses it: the kernel refuses overlaps; guard, file_ioctl
$poke blkpg "/dev/$disk" add 60 $((start * 512)) 1048576 && { $poke blkpg "/dev/$disk" delete 60; true; }

### C15 guard: the kernel reads a partition table anew
# who refuses it: guard, file_ioctl
need /dev/nvme0n1; blockdev --rereadpt /dev/nvme0n1

### C16 guard: discard sectors of the other slot
# who refuses it: guard, file_open
other_slot; at=$(cat "/sys/class/block/$other/start"); blkdiscard -f -o $((at * 512)) -l 1048576 "/dev/$disk"

### C17 guard: write zeroes with BLKZEROOUT
# who refuses it: guard, file_open
other_slot; blkdiscard -f -z -o 0 -l 4096 "/dev/$other"

### C18 guard: write to the partition table
# who refuses it: guard, file_open
$poke write "/dev/$disk" 0

### C19 guard: mount the ESP and write a file there
# who refuses it: guard, sb_kern_mount
mkdir -p /run/c19; undo 'umount -l /run/c19; rmdir /run/c19'; mount -t vfat "/dev/$esp" /run/c19 || exit; undo 'rm -f /run/c19/evil'; echo evil >/run/c19/evil && sync -f /run/c19/evil && grep -q evil /run/c19/evil

### C20 guard: write to the ESP's sectors
# who refuses it: guard, file_open
$poke write "/dev/$esp" 0

### C21 guard: write an image to the other slot
# who refuses it: guard, file_open
other_slot; $poke write "/dev/$other" 4096

### C22 guard: a volume's sectors, below its file system
# who refuses it: guard, file_open
$poke write "/dev/$var" 0

### C23 guard: the root's device gets a table that overlooks what is changed below it, ignore_corruption
# who refuses it: guard, file_ioctl
need dmsetup; set -- $(dmsetup table "$dm"); [ "$3" = verity ] || exit
size=$2; shift 3; undo "$poke dm load $dm $size verity '$*'"; $poke dm load "$dm" "$size" verity "$1 $2 $3 $4 $5 $6 $7 $8 $9 ${10} 1 ignore_corruption" && dmsetup table "$dm" | grep -o ignore_corruption

### C24 guard: the root's device is renamed
# who refuses it: guard, file_ioctl
undo "dmsetup rename --noudevsync evil $dm"; $poke dm rename "$dm" evil && [ "$(cat "/sys/dev/block/$root/dm/name")" = evil ]

### C25 verity: the root's device is removed
# who refuses it: the kernel: it is in use
$poke dm remove "$dm"

### C26 guard: the root's device is suspended
# who refuses it: guard, file_ioctl
$poke dm suspend "$dm"

### C27 guard: a verity device of the attacker's, with his own root hash, and a program on it
# who refuses it: guard, file_ioctl, sb_kern_mount and bprm_check_security
need /dev/nvme0n1; mkdir -p /run/c27; undo "umount -l /run/c27; rmdir /run/c27; $poke dm remove c27; rm -f /dev/c27"
$poke dm create c27 16384 verity "1 /dev/nvme0n1 /dev/nvme0n1 4096 4096 2048 2049 sha256 $(cat $here/evil.hash) 00" || exit
for f in /sys/class/block/dm-*/dm/name; do grep -qx c27 "$f" && mknod /dev/c27 b $(tr : ' ' <"${f%/dm/name}/dev"); done
mount -o ro,noload /dev/c27 /run/c27 && ran "$(/run/c27/program)"

### C28 guard: a program on another disk's file system
# who refuses it: guard, sb_kern_mount and bprm_check_security
need /dev/nvme0n1; mkdir -p /run/c28; undo 'umount -l /run/c28; rmdir /run/c28'; mount -o ro,noload,exec,suid /dev/nvme0n1 /run/c28; ran "$(/run/c28/program)"

### C29 guard: another disk is mounted at all
# who refuses it: guard, sb_kern_mount
need /dev/nvme0n1; mkdir -p /run/c29; undo 'umount -l /run/c29; rmdir /run/c29'; mount -o ro,noload,noexec /dev/nvme0n1 /run/c29 && [ -e /run/c29/program ]

### C30 guard: a program on a loop-mounted file system from a volume
# who refuses it: guard, file_open and file_ioctl
need losetup /dev/loop-control; cp $here/evil.img . && mkdir -p /run/c30; undo 'umount -l /run/c30; rmdir /run/c30'; mount -o loop,ro,noload,exec,suid "$PWD/evil.img" /run/c30; ran "$(/run/c30/program)"

### C31 guard: a loop device is set up by descriptors for reading alone
# who refuses it: guard, file_ioctl
need /dev/loop-control; cp $here/evil.img .; loop=$(losetup -f); [ -b "$loop" ] || skip 'no free loop device'; undo "losetup -d $loop"; $poke loop "$loop" "$PWD/evil.img"

### C32 guard: a write to the root's blocks by SG_IO on the disk
# who refuses it: guard, file_ioctl
case $disk in sd*) ;; *) skip 'not a SCSI disk' ;; esac; $poke scsi "/dev/$disk" $((start + 8))

### C33 guard: by SG_IO on the partition, which needs no more
# who refuses it: guard, file_ioctl (the kernel refuses it on partitions)
case $disk in sd*) ;; *) skip 'not a SCSI disk' ;; esac; $poke scsi "/dev/$data" 8

### C34 guard: by SG_IO on the generic SCSI device
# who refuses it: guard, file_ioctl
sg=$(ls "/sys/class/block/$disk/device/scsi_generic" 2>/dev/null | head -n 1); need "/dev/${sg:-sg}"; $poke scsi "/dev/$sg" $((start + 8))

### C35 guard: by write(2) on the generic SCSI device, without any ioctl
# who refuses it: guard, file_open
sg=$(ls "/sys/class/block/$disk/device/scsi_generic" 2>/dev/null | head -n 1); need "/dev/${sg:-sg}"; $poke scsi "/dev/$sg" $((start + 8)) write

### C36 guard: by version 4 of SG_IO on the block SCSI generic device
# who refuses it: guard, file_ioctl
bsg=$(ls "/sys/class/block/$disk/device/bsg" 2>/dev/null | head -n 1); need "/dev/bsg/${bsg:-bsg}"; $poke bsg "/dev/bsg/$bsg" $((start + 8))

### C37 guard: NVMe passthrough on the block device
# who refuses it: guard, file_ioctl
need /dev/nvme0n1; $poke nvme /dev/nvme0n1 100

### C38 guard: NVMe passthrough with 64 bits
# who refuses it: guard, file_ioctl
need /dev/nvme0n1; $poke nvme /dev/nvme0n1 100 io64

### C39 guard: NVMe passthrough on the generic device
# who refuses it: guard, file_ioctl
need /dev/ng0n1; $poke nvme /dev/ng0n1 100 io64

### C40 guard: NVMe passthrough by IORING_OP_URING_CMD
# who refuses it: guard, uring_cmd
need /dev/ng0n1; $poke uring-nvme /dev/ng0n1 100

### C41 guard: an NVMe controller is reset
# who refuses it: guard, file_ioctl
need /dev/nvme0; $poke ioctl /dev/nvme0 0x4e44

### C42 guard: a network block device is told its size and socket
# who refuses it: guard, file_ioctl
need /dev/nbd0; $poke ioctl /dev/nbd0 0xab02 1048576

### C43 guard: the block tracer, whose files the kernel makes
# who refuses it: guard, file_ioctl
$poke ioctl "/dev/$disk" 0xc0481273 @0000000000000000000000000000000000000000000000000000000000000000ffff00000010000004000000 && $poke ioctl "/dev/$disk" 0x1276

### C44 guard: a RAM disk that is compressed, with a program on it
# who refuses it: lockdown (no modules), guard, sb_kern_mount
modprobe zram 2>/dev/null; need /dev/zram0; undo 'umount -l /run/c44; echo 1 >/sys/block/zram0/reset'; echo 16M >/sys/block/zram0/disksize; dd if=$here/evil.img of=/dev/zram0 bs=1M 2>/dev/null; mkdir -p /run/c44; mount -o ro,noload /dev/zram0 /run/c44; ran "$(/run/c44/program)"

### C45 guard: an image file is mounted by EROFS without a loop device, and a program runs there
# who refuses it: guard, bprm_check_security
cp $here/evil.erofs . && mkdir -p /run/c45; undo 'umount -l /run/c45; rmdir /run/c45'; $poke fsmount erofs /run/c45 "source=$PWD/evil.erofs" ro || skip 'no EROFS from files'
ran "$(/run/c45/program)"

### C46 guard: the disk is a target of the kernel's own SCSI or NVMe server
# who refuses it: lockdown (no modules)
modprobe nvmet 2>/dev/null && modprobe nvme-loop 2>/dev/null; [ -d /sys/kernel/config/nvmet ] || skip 'no nvmet'
s=/sys/kernel/config/nvmet/subsystems/evil; undo "rmdir $s/namespaces/1 $s"; mkdir -p $s/namespaces/1 && echo -n "/dev/$disk" >$s/namespaces/1/device_path && undo "echo 0 >$s/namespaces/1/enable" && echo 1 >$s/namespaces/1/enable && [ "$(cat $s/namespaces/1/enable)" = 1 ]

### C47 guard: a disk of the network by NVMe over Fabrics
# who refuses it: lockdown (no modules)
modprobe nvme-fabrics 2>/dev/null; need /dev/nvme-fabrics; echo 'transport=loop,nqn=evil' >/dev/nvme-fabrics

### C49 guard: the root's partition below a device of another name
# who refuses it: guard, file_ioctl
undo "$poke dm remove c49"; $poke dm create c49 16384 linear "/dev/$data 0"
