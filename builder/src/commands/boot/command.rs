//! QEMU's command line, part by part. `adamant boot` and the tests start every machine with it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use super::Port;
use super::firmware::Firmware;
use super::machine::escape_commas;

/// The accelerator for emulation, with a cache of 128 MiB for translated code. Writes to memory
/// that has translated code are slow until the cache drops that code, and after a restart this is
/// true for all memory. With QEMU's default cache of 1 GiB a second start takes ten times as long
/// as the first.
const TCG: &str = "tcg,tb-size=128";

/// Whether the host's processor runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// Emulation.
    Tcg,
}

/// A machine without disks.
#[derive(Debug, Clone, Copy)]
pub struct Hardware<'a> {
    /// Name of QEMU's window and process.
    pub name: &'a str,
    /// Whether the host's processor runs the guest.
    pub accelerator: Accelerator,
    /// Whether the board has its SATA controller. The kernel's search for disks on it takes half a
    /// second.
    pub sata: bool,
    /// Virtual processors.
    pub smp: u32,
    /// Memory in QEMU's syntax, for example `1G`.
    pub memory: &'a str,
}

/// A disk's file.
#[derive(Debug, Clone, Copy)]
pub struct Drive<'a> {
    /// The file.
    pub file: &'a Path,
    /// Its format.
    pub format: DriveFormat,
    /// Whether a power cut of the host may lose writes.
    pub cache: DriveCache,
}

/// Format of a disk for QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveFormat {
    /// The disk itself.
    Raw,
    /// QEMU's copy-on-write disk.
    Qcow2,
}

impl DriveFormat {
    /// The name in QEMU's options.
    fn name(self) -> &'static str {
        match self {
            DriveFormat::Raw => "raw",
            DriveFormat::Qcow2 => "qcow2",
        }
    }
}

/// How QEMU caches a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveCache {
    /// A flush of the guest reaches the host's disk.
    Writeback,
    /// Flushes are ignored. For disks that nothing needs after the run.
    Unsafe,
}

impl DriveCache {
    /// The name in QEMU's options.
    fn name(self) -> &'static str {
        match self {
            DriveCache::Writeback => "writeback",
            DriveCache::Unsafe => "unsafe",
        }
    }
}

/// How a disk is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBus {
    /// virtio-blk.
    Virtio,
    /// A SCSI controller, which [`QemuCommand::scsi_controller`] adds first.
    Scsi,
    /// NVMe.
    Nvme,
}

/// A command line for QEMU.
#[derive(Debug)]
pub struct QemuCommand(Command);

impl QemuCommand {
    /// A machine without default devices and without a display.
    pub fn new(qemu: &Path, hardware: Hardware) -> QemuCommand {
        let mut command = Command::new(qemu);
        command
            .args(["-nodefaults", "-no-user-config", "-name"])
            .arg(escape_commas(hardware.name));
        let board = match hardware.sata {
            true => "q35",
            false => "q35,sata=off",
        };
        // Both CPU models have SHA-NI and similar extensions.
        let (accelerator, cpu) = match hardware.accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            Accelerator::Tcg => (TCG, "max"),
        };
        command.args(["-machine", board, "-accel", accelerator, "-cpu", cpu]);
        command.args(["-smp", &hardware.smp.to_string(), "-m", hardware.memory]);
        command.args(["-display", "none"]);
        QemuCommand(command)
    }

    /// QEMU starts this kernel itself.
    pub fn kernel(&mut self, kernel: &Path, initrd: Option<&Path>, cmdline: &str) {
        self.0.arg("-kernel").arg(kernel);
        if let Some(initrd) = initrd {
            self.0.arg("-initrd").arg(initrd);
        }
        self.0.arg("-append").arg(cmdline);
    }

    /// Firmware starts the disk with the lowest boot index.
    pub fn firmware(&mut self, firmware: &Firmware) {
        self.0.args(firmware.arguments());
    }

    /// Adds a disk's file without a device: the monitor can plug it in later.
    pub fn drive(&mut self, id: &str, drive: Drive) {
        self.0.arg("-drive").arg(format!(
            "if=none,id={id},format={},cache={},discard=unmap,file={}",
            drive.format.name(),
            drive.cache.name(),
            escape_commas(&drive.file.display().to_string())
        ));
    }

    /// Adds a disk. Its boot index must be `None` if QEMU starts a kernel, which has boot index 0.
    pub fn disk(&mut self, id: &str, drive: Drive, bus: DiskBus, boot_index: Option<usize>) {
        self.drive(id, drive);
        let device = match bus {
            DiskBus::Virtio => "virtio-blk-pci".to_owned(),
            DiskBus::Scsi => "scsi-hd,bus=scsi.0".to_owned(),
            DiskBus::Nvme => format!("nvme,serial={id}"),
        };
        let order = boot_index.map_or_else(String::new, |index| format!(",bootindex={index}"));
        self.device(&format!("{device},drive={id}{order}"));
    }

    /// Adds the controller of SCSI disks.
    pub fn scsi_controller(&mut self) {
        self.device("virtio-scsi-pci,id=scsi");
    }

    /// Adds a device.
    pub fn device(&mut self, device: &str) {
        self.arguments(["-device", device]);
    }

    /// Adds a source of random numbers.
    pub fn random_numbers(&mut self) {
        self.device("virtio-rng-pci");
    }

    /// Adds a watchdog that restarts the machine.
    pub fn watchdog(&mut self) {
        self.device("i6300esb");
        self.arguments(["-watchdog-action", "reset"]);
    }

    /// Adds a network that reaches other machines, with ports of this host that lead to the guest.
    pub fn network(&mut self, ports: &[Port]) {
        let forward: String = ports
            .iter()
            .map(|Port { host, guest }| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"))
            .collect();
        self.arguments(["-netdev", &format!("user,id=net{forward}")]);
        self.device("virtio-net-pci,netdev=net");
    }

    /// Adds an SMBIOS string, in which the guest finds credentials and kernel arguments.
    pub fn smbios_string(&mut self, text: &str) {
        let value = format!("type=11,value={}", escape_commas(text));
        self.arguments(["-smbios", &value]);
    }

    /// Adds a serial port that is connected to a character device with this id.
    pub fn serial(&mut self, id: &str, character_device: &str) {
        self.arguments(["-chardev", &format!("{character_device},id={id}")]);
        self.arguments(["-serial", &format!("chardev:{id}")]);
    }

    /// Adds other arguments.
    pub fn arguments<A: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = A>) {
        self.0.args(arguments);
    }

    /// The command, to be started.
    pub fn into_command(self) -> Command {
        self.0
    }
}

/// A character device that writes to a file.
pub fn file_device(path: &Path) -> String {
    format!("file,path={}", escape_commas(&path.display().to_string()))
}
