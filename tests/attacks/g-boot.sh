# Class G: what the next start takes its instructions from.

### G01 guard: another kernel image in the ESP
# who refuses it: guard, sb_kern_mount
mkdir -p /run/g01; undo 'umount -l /run/g01; rmdir /run/g01'; mount -t vfat "/dev/$esp" /run/g01 || exit; undo 'rm -f /run/g01/EFI/Linux/evil.efi'; mkdir -p /run/g01/EFI/Linux; echo evil >/run/g01/EFI/Linux/evil.efi && sync -f /run/g01/EFI/Linux/evil.efi && [ -s /run/g01/EFI/Linux/evil.efi ]

### G02 guard: the ESP through systemd's automount
# who refuses it: guard, sb_kern_mount
for d in /efi /boot; do ls $d >/dev/null 2>&1; if grep -q " $d .* vfat " /proc/self/mountinfo; then undo "rm -f $d/evil"; echo evil >$d/evil && sync -f $d/evil && exit 0; fi; done; false

### G03 guard: the ESP's sectors through a loop device
# who refuses it: guard, file_open and file_ioctl
need losetup; loop=$(losetup -f --show "/dev/$esp") && undo "losetup -d $loop"; [ -n "$loop" ] && $poke write "$loop" 0

### G04 guard: an EFI variable: what the boot loader starts once
# who refuses it: guard, inode_create
v=/sys/firmware/efi/efivars; need $v/; [ "$(ls $v | wc -l)" -gt 0 ] || mount -t efivarfs efivarfs $v; f=$v/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f; undo "chattr -i $f; rm -f $f"
printf '\007\000\000\000e\000v\000i\000l\000\000\000' >$f && [ -s $f ]

### G05 guard: an EFI variable of firmware's: what it starts next, BootNext
# who refuses it: guard, inode_create
v=/sys/firmware/efi/efivars; need $v/; f=$v/BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c; undo "chattr -i $f; rm -f $f"; printf '\007\000\000\000\000\000' >$f && [ -s $f ]

### G06 guard: an EFI variable that is there is changed
# who refuses it: guard, file_open
v=/sys/firmware/efi/efivars; f=$(ls $v/BootOrder-* 2>/dev/null | head -n 1); need "${f:-none}"; cat "$f" >was; chattr -i "$f"; undo "chattr +i $f"; cat was >"$f"

### G07 guard: an EFI variable is deleted
# who refuses it: guard, inode_unlink
v=/sys/firmware/efi/efivars; f=$(ls $v/Boot000[0-9]-* 2>/dev/null | tail -n 1); need "${f:-none}"; cat "$f" >was; chattr -i "$f"; undo "cat was >$f"; rm -f "$f"; [ ! -e "$f" ]

### G08 guard: EFI variables by a mount of efivarfs of one's own
# who refuses it: guard, inode_create
need /sys/firmware/efi/efivars/; mkdir -p /run/g08; undo 'umount -l /run/g08; rmdir /run/g08'; mount -t efivarfs efivarfs /run/g08 || exit; f=/run/g08/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f; undo "chattr -i $f; rm -f $f"; printf '\007\000\000\000e\000\000\000' >$f && [ -s $f ]

### G09 guard: the boot loader's entry, by bootctl
# who refuses it: guard, inode_create
need bootctl /sys/firmware/efi/efivars/; undo 'bootctl set-oneshot ""'; bootctl set-oneshot evil.efi 2>&1; ls /sys/firmware/efi/efivars/LoaderEntryOneShot-*

### G10 guard: firmware's setup at the next start, by logind
# who refuses it: guard, inode_create
need /sys/firmware/efi/efivars/; undo 'busctl call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager SetRebootToFirmwareSetup b false'
timeout 8 busctl call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager SetRebootToFirmwareSetup b true && [ "$(busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager RebootToFirmwareSetup)" = 'b true' ]

### G11 guard: a capsule, which is new firmware
# who refuses it: lockdown (no modules)
modprobe capsule-loader 2>/dev/null; need /dev/efi_capsule_loader; exec 3>/dev/efi_capsule_loader

### G12 guard: an old image in the other slot, with its label
# who refuses it: guard, file_open
other_slot; $poke write "/dev/$other" 0 && $poke write "/dev/$disk" 1024

### G13 guard: the copy of the partition table at the disk's end
# who refuses it: guard, file_open
$poke write "/dev/$disk" $((($(cat "/sys/class/block/$disk/size") - 8) * 512))

### G14 guard: partitions' labels by sfdisk
# who refuses it: guard, file_open
need sfdisk; echo "$(sfdisk --part-label "/dev/$disk" 4)" >was; undo "sfdisk -q --no-reread --part-label /dev/$disk 4 _empty"; sfdisk -q --no-reread --part-label "/dev/$disk" 4 evil && [ "$(sfdisk --part-label "/dev/$disk" 4)" = evil ]

### G15 guard: systemd is told to start another kernel, systemctl kexec
# who refuses it: lockdown, kernel.kexec_load_disabled
[ "$(cat /sys/kernel/kexec_loaded)" = 1 ]

### G16 guard: firmware's ACPI tables for the next kernel, through /dev/mem or configfs
# who refuses it: lockdown
[ -d /sys/kernel/config/acpi/table ] || modprobe acpi_configfs 2>/dev/null; need /sys/kernel/config/acpi/table; undo 'rmdir /sys/kernel/config/acpi/table/evil'; mkdir /sys/kernel/config/acpi/table/evil && printf 'SSDT\044\000\000\000\002\000EVIL  EVIL    \001\000\000\000EVIL\001\000\000\000' >/sys/kernel/config/acpi/table/evil/aml

### G17 guard slow: a disk with the same labels is plugged in, and mounted as the state volume
# who refuses it: guard, sb_kern_mount
echo 'attacks plug' >/dev/console || skip 'nobody plugs a disk in for this one'; for t in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1; echo '- - -' >/sys/class/scsi_host/host0/scan 2>/dev/null; twin=$(ls /sys/class/block | grep '^sd[a-z]$' | grep -vx "$disk" | head -n 1); [ -n "$twin" ] && [ -b "/dev/${twin}7" ] && break; done
[ -n "$twin" ] || skip 'no disk appeared'; udevadm settle -t 5; undo 'umount -l /run/g17; rmdir /run/g17'; mkdir -p /run/g17
mount -t vfat "/dev/${twin}1" /run/g17 && [ -d /run/g17/EFI ]

### G18 guard: that disk is written to
# who refuses it: guard, file_open
twin=$(ls /sys/class/block | grep '^sd[a-z]$' | grep -vx "$disk" | head -n 1); [ -n "$twin" ] || skip 'no disk appeared'; $poke write "/dev/$twin" $((start * 512))

### G19 verity: that disk's partitions take the names in /dev/disk
# who refuses it: udev, by the agent's rule. The agent looks on the disk that it started from, and the guard knows devices by number
twin=$(ls /sys/class/block | grep '^sd[a-z]$' | grep -vx "$disk" | head -n 1); [ -n "$twin" ] || skip 'no disk appeared'; readlink -f /dev/disk/by-partlabel/* | grep -q "/${twin}"

### G20 guard: boot counting: the running image is marked as bad or good, in the ESP
# who refuses it: guard, sb_kern_mount
mkdir -p /run/g20; undo 'umount -l /run/g20; rmdir /run/g20'; mount -t vfat "/dev/$esp" /run/g20 || exit; f=$(ls /run/g20/EFI/Linux/*.efi | head -n 1); undo "mv '/run/g20/EFI/Linux/evil+0-3.efi' '$f'"; mv "$f" "/run/g20/EFI/Linux/evil+0-3.efi"

### G21 guard: the random seed and loader.conf of the ESP, by bootctl
# who refuses it: guard, sb_kern_mount
need bootctl; mkdir -p /run/g21; undo 'umount -l /run/g21; rmdir /run/g21'; mount -t vfat "/dev/$esp" /run/g21 && bootctl --esp-path=/run/g21 random-seed 2>&1
