//! The guard's configuration: the numbers by which the running kernel knows the image, the host,
//! the volumes and the exceptions of the policy.
//!
//! In two steps: [`Numbers::look_up`] asks the machine, [`configure`] combines the answers with the
//! policy. The layout is generated from agent/bpf/guard.bpf.c, see [`crate::kernel::guard_abi`].

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adamant_contract::paths::{AGENT_PATH, IDENTITY_DIR, SYSROOT};
use adamant_contract::policy::Seal;
use adamant_contract::report::BootReport;
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use super::super::identity::Identified;
use super::super::root;
use crate::kernel::block;
use crate::kernel::guard_abi::{GuardConfig, UNUSED, allowance, device_flags};

/// Programs of systemd that the guard knows by their inode.
const SHUTDOWN: &str = "/usr/lib/systemd/systemd-shutdown";
const MANAGER: &str = "/usr/lib/systemd/systemd";
const EXECUTOR: &str = "/usr/lib/systemd/systemd-executor";
const KMOD: &str = "/usr/bin/kmod";
/// A link to udevadm.
pub const UDEVD: &str = "/usr/lib/systemd/systemd-udevd";
const MODULES_LOAD: &str = "/usr/lib/systemd/systemd-modules-load";
/// Programs that set the system clock: systemd's (also on request of timedatectl), chrony, ntpsec
/// and OpenNTPD, ntpd-rs, those of linuxptp, and VMware's agent. hwclock is not among them: it sets
/// the hardware clock for QEMU's guest agent, but anyone may start it.
const CLOCK_PROGRAMS: [&str; 9] = [
    "/usr/lib/systemd/systemd-timesyncd",
    "/usr/lib/systemd/systemd-timedated",
    "/usr/sbin/chronyd",
    "/usr/sbin/ntpd",
    "/usr/bin/ntp-daemon",
    "/usr/sbin/ptp4l",
    "/usr/sbin/phc2sys",
    "/usr/sbin/ts2phc",
    "/usr/bin/vmtoolsd",
];
/// The agent's files in its directory on a volume.
const AGENT_FILES: [&str; 3] = ["machine-id", "seeded", "damaged"];

/// The configuration.
pub struct Configuration {
    /// The value of the guard's map.
    pub values: GuardConfig,
    /// Exceptions of the policy that name an object this machine does not have, as clauses.
    pub without_object: Vec<String>,
}

/// Looks up all numbers and combines them with the policy. `pins` is the directory with the guard's
/// links. With `modules_on_request` the guard decides who loads modules. The error is a phrase for
/// a message.
pub fn configuration(
    identified: &Identified,
    seal: &Seal,
    modules_on_request: bool,
    pins: &str,
    report: &BootReport,
) -> Result<Configuration, String> {
    configure(
        seal,
        modules_on_request,
        &Numbers::look_up(identified, seal, pins, report)?,
    )
}

/// The numbers of objects in the running kernel. Devices are as the kernel encodes them
/// (include/linux/kdev_t.h), programs are inodes of the image, and 0 where the image has none.
#[derive(Clone, Default)]
struct Numbers {
    root_device: u32,
    run_device: u32,
    host_namespace: u32,
    shutdown: u64,
    agent: u64,
    manager: u64,
    executor: u64,
    kmod: u64,
    udev: u64,
    modules_load: u64,
    build_time: i64,
    black_box: u32,
    /// Volumes by name.
    volumes: Vec<(String, u32)>,
    /// Keys of the agent's directories and files on volumes.
    agent_owned: Vec<u64>,
    /// Devices of the kernel's own file systems.
    fixed: Vec<u32>,
    /// Devices of file systems in memory that anything may be mounted below.
    memory: Vec<u32>,
    /// The device of the BPF file system with the guard's links.
    pins: u32,
    /// Partitions of the root's disk that the policy names, by label.
    partitions: BTreeMap<String, u32>,
    /// Keys of the directories that the policy names, by path.
    directories: BTreeMap<String, u64>,
    interpreters: Vec<u64>,
    clocks: Vec<u64>,
}

impl Numbers {
    fn look_up(
        identified: &Identified,
        seal: &Seal,
        pins: &str,
        report: &BootReport,
    ) -> Result<Numbers, String> {
        let root_device = device_of(SYSROOT)?;
        let program = |path: &str| {
            in_image(path)
                .filter(|(device, _)| *device == root_device)
                .map_or(0, |(_, inode)| inode)
        };
        let host_namespace = fs::metadata("/proc/self/ns/mnt")
            .map_err(|e| format!("/proc/self/ns/mnt: {e}"))?
            .ino() as u32;
        let mut numbers = Numbers {
            root_device,
            run_device: device_of("/run")?,
            host_namespace,
            shutdown: program(SHUTDOWN),
            agent: program(AGENT_PATH),
            manager: program(MANAGER),
            executor: program(EXECUTOR),
            kmod: program(KMOD),
            udev: program(UDEVD),
            modules_load: program(MODULES_LOAD),
            build_time: report.built,
            black_box: report
                .black_box
                .as_deref()
                .and_then(|path| fs::metadata(path).ok())
                .map_or(0, |found| device(found.rdev())),
            pins: device_of(pins)?,
            ..Numbers::default()
        };
        for volume in &identified.root().policy().volumes {
            let volume_device = device_of(&[SYSROOT, &volume.mount].concat())?;
            let directory = [&volume.mount, "/", IDENTITY_DIR].concat();
            let files = AGENT_FILES.map(|name| [&directory, "/", name].concat());
            numbers.agent_owned.extend(
                std::iter::once(&directory)
                    .chain(&files)
                    .filter_map(|path| in_image(path))
                    .filter(|(device, _)| *device == volume_device)
                    .map(key),
            );
            numbers.volumes.push((volume.name.clone(), volume_device));
        }
        for path in ["/proc", "/sys", "/dev", "/run"] {
            numbers.fixed.push(device_of(path)?);
        }
        let tmp = device_of(&[SYSROOT, "/tmp"].concat()).unwrap_or(root_device);
        numbers.memory = vec![numbers.run_device, device_of("/dev/shm")?, tmp];
        numbers.memory.retain(|device| *device != root_device);
        for label in &seal.allow.disks {
            if let Some(found) = partition(&identified.root().disk().name, label) {
                numbers.partitions.insert(label.clone(), found);
            }
        }
        for path in &seal.allow.mounts {
            if let Some(found) = in_image(path) {
                numbers.directories.insert(path.clone(), key(found));
            }
        }
        for path in &seal.interpreters {
            let inode = program(path);
            // The builder found this interpreter. Without its inode the guard would not know it,
            // and would let it read scripts from anywhere.
            if inode == 0 {
                return Err([path, " is not a program of the image"].concat());
            }
            numbers.interpreters.push(inode);
        }
        numbers.clocks = CLOCK_PROGRAMS.map(program).to_vec();
        numbers.clocks.retain(|inode| *inode != 0);
        Ok(numbers)
    }
}

/// Combines the policy with the machine's numbers.
fn configure(
    seal: &Seal,
    modules_on_request: bool,
    numbers: &Numbers,
) -> Result<Configuration, String> {
    let allow = &seal.allow;
    let mut without_object = Vec::new();

    let mut devices: BTreeMap<u32, u32> = BTreeMap::new();
    let mut add = |device: u32, flags: u32| *devices.entry(device).or_default() |= flags;
    for (name, device) in &numbers.volumes {
        add(*device, device_flags::VOLUME);
        if allow.execute.contains(name) {
            add(*device, device_flags::EXECUTE);
        }
    }
    for device in &numbers.fixed {
        add(*device, device_flags::FIXED);
    }
    for device in &numbers.memory {
        add(*device, device_flags::MEMORY);
    }
    add(numbers.pins, device_flags::PINS);
    for label in &allow.disks {
        match numbers.partitions.get(label) {
            Some(device) => add(*device, device_flags::DISK),
            None => without_object.push(format!("the disk has no partition {label:?}")),
        }
    }
    let devices = devices
        .iter()
        .map(|(device, flags)| u64::from(*device) << 32 | u64::from(*flags))
        .collect();

    let mut mount_points = Vec::new();
    for path in &allow.mounts {
        match numbers.directories.get(path) {
            Some(key) => mount_points.push(*key),
            None => without_object.push(format!("there is no {path}")),
        }
    }

    let allowances = [
        (allow.jit, allowance::JIT),
        (allow.debug, allowance::DEBUG),
        (allow.bpf, allowance::BPF_PROGRAMS),
        (allow.containers, allowance::CONTAINERS),
        (allow.binfmt, allowance::BINFMT),
        (!allow.mounts.is_empty(), allowance::MOUNTS),
        (modules_on_request, allowance::MODULES),
    ];
    let values = GuardConfig {
        root_device: numbers.root_device,
        run_device: numbers.run_device,
        host_namespace: numbers.host_namespace,
        allowances: allowances
            .iter()
            .filter(|(allowed, _)| *allowed)
            .fold(0, |all, (_, bit)| all | bit),
        shutdown: numbers.shutdown,
        agent: numbers.agent,
        manager: numbers.manager,
        executor: numbers.executor,
        kmod: numbers.kmod,
        udev: numbers.udev,
        modules_load: numbers.modules_load,
        build_time: numbers.build_time,
        black_box: u64::from(numbers.black_box),
        interpreter_bloom: numbers
            .interpreters
            .iter()
            .fold(0, |bloom, inode| bloom | bloom_bit(*inode)),
        devices: sorted("devices", devices)?,
        mount_points: sorted("[seal.allow] mounts", mount_points)?,
        agent_owned: sorted("files of the agent on volumes", numbers.agent_owned.clone())?,
        interpreters: sorted("interpreters", numbers.interpreters.clone())?,
        clocks: sorted("programs that set the clock", numbers.clocks.clone())?,
    };
    Ok(Configuration {
        values,
        without_object,
    })
}

/// A directory or file on a volume, as the guard's lists contain it. The guard does not find inode
/// numbers of more than 32 bits: ext4 and EROFS have none.
fn key((device, inode): (u32, u64)) -> u64 {
    if inode >> 32 == 0 {
        u64::from(device) << 32 | inode
    } else {
        UNUSED
    }
}

/// A list as the guard searches it: sorted, with [`UNUSED`] after the last entry.
fn sorted<const CAPACITY: usize>(
    what: &str,
    mut list: Vec<u64>,
) -> Result<[u64; CAPACITY], String> {
    let length = list.len();
    list.resize(length.max(CAPACITY), UNUSED);
    list.sort_unstable();
    list.try_into()
        .map_err(|_| format!("{length} {what}, but the guard has room for {CAPACITY}"))
}

/// One of 64 bits for an inode, as `bloom_bit` of agent/bpf/guard.bpf.c.
fn bloom_bit(inode: u64) -> u64 {
    1 << (inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

/// The device of the file system at a path.
fn device_of(path: &str) -> Result<u32, String> {
    fs::metadata(path)
        .map(|found| device(found.dev()))
        .map_err(|e| format!("{path}: {e}"))
}

/// Device and inode of a path in the image, with its volumes mounted.
fn in_image(path: &str) -> Option<(u32, u64)> {
    let found = root::open_inside(path, OFlag::O_PATH)
        .and_then(|file| file.metadata())
        .ok()?;
    Some((device(found.dev()), found.ino()))
}

/// A device number as the kernel encodes it (include/linux/kdev_t.h).
fn device(dev: u64) -> u32 {
    (major(dev) as u32) << 20 | minor(dev) as u32
}

/// The device number of the disk's partition with this label.
fn partition(disk: &str, label: &str) -> Option<u32> {
    for entry in fs::read_dir(Path::new("/sys/block").join(disk))
        .ok()?
        .flatten()
    {
        if block::label(&entry.path()).as_deref() == Some(label) {
            let number = block::major_minor(entry.file_name().to_str()?).ok()?;
            let (major, minor) = number.split_once(':')?;
            return Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use adamant_contract::policy::Allow;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    const STATE: u32 = 0xfe_00001;
    const ESP: u32 = 0xfe_00002;
    const MNT: u64 = 0xfe_00003 << 32 | 77;

    fn machine() -> Numbers {
        Numbers {
            root_device: 0xfd_00000,
            run_device: 0x19,
            volumes: vec![("state".to_owned(), STATE), ("logs".to_owned(), STATE + 8)],
            fixed: vec![0x15, 0x16, 0x19],
            memory: vec![0x19],
            pins: 0x1a,
            partitions: BTreeMap::from([("esp".to_owned(), ESP)]),
            directories: BTreeMap::from([("/mnt".to_owned(), MNT)]),
            interpreters: vec![501, 502],
            ..Numbers::default()
        }
    }

    fn values(allow: Allow) -> GuardConfig {
        let seal = Seal {
            allow,
            ..Seal::default()
        };
        let configuration = configure(&seal, false, &machine()).unwrap();
        assert_eq!(configuration.without_object, [""; 0]);
        configuration.values
    }

    fn names(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    /// The bits in which two configurations differ.
    fn changed_bits(one: &GuardConfig, other: &GuardConfig) -> u32 {
        one.as_bytes()
            .iter()
            .zip(other.as_bytes())
            .map(|(a, b)| (a ^ b).count_ones())
            .sum()
    }

    #[test]
    fn each_boolean_exception_sets_its_own_bit_and_no_other() {
        let without = values(Allow::default());
        assert_eq!(without.allowances, 0);
        for (name, set, bit) in [
            (
                "jit",
                (|allow| allow.jit = true) as fn(&mut Allow),
                allowance::JIT,
            ),
            ("debug", |allow| allow.debug = true, allowance::DEBUG),
            ("bpf", |allow| allow.bpf = true, allowance::BPF_PROGRAMS),
            (
                "containers",
                |allow| allow.containers = true,
                allowance::CONTAINERS,
            ),
            ("binfmt", |allow| allow.binfmt = true, allowance::BINFMT),
        ] {
            let mut allow = Allow::default();
            set(&mut allow);
            assert_eq!(allow.used(), [name]);
            let with = values(allow);
            assert_eq!(with.allowances, bit, "{name}");
            assert_eq!(changed_bits(&without, &with), 1, "{name}");
        }
    }

    #[test]
    fn modules_on_request_set_their_own_bit_and_no_other() {
        let without = values(Allow::default());
        let with = configure(&Seal::default(), true, &machine()).unwrap();
        assert_eq!(with.values.allowances, allowance::MODULES);
        assert_eq!(changed_bits(&without, &with.values), 1);
    }

    #[test]
    fn an_executable_volume_gets_one_more_bit_and_other_volumes_none() {
        let without = values(Allow::default());
        let with = values(Allow {
            execute: names("state"),
            ..Allow::default()
        });
        assert_eq!(changed_bits(&without, &with), 1);
        let entry = |flags: u32| u64::from(STATE) << 32 | u64::from(flags);
        assert!(
            with.devices
                .contains(&entry(device_flags::VOLUME | device_flags::EXECUTE))
        );
        assert!(without.devices.contains(&entry(device_flags::VOLUME)));
    }

    #[test]
    fn a_writable_partition_is_one_more_device_with_one_bit() {
        let mut without = values(Allow::default());
        let with = values(Allow {
            disks: names("esp"),
            ..Allow::default()
        });
        let unused = without.devices.iter().rposition(|entry| *entry == UNUSED);
        without.devices[unused.unwrap()] = u64::from(ESP) << 32 | u64::from(device_flags::DISK);
        without.devices.sort_unstable();
        assert_eq!(with, without);
    }

    #[test]
    fn a_mount_point_is_one_list_entry_and_one_bit() {
        let mut without = values(Allow::default());
        let with = values(Allow {
            mounts: names("/mnt"),
            ..Allow::default()
        });
        without.allowances = allowance::MOUNTS;
        without.mount_points[0] = MNT;
        assert_eq!(with, without);
    }

    #[test]
    fn an_allowed_interpreter_is_missing_from_the_list_and_nothing_else_changes() {
        let mut without = values(Allow::default());
        let allow = Allow {
            scripts: names("/usr/bin/dash"),
            ..Allow::default()
        };
        // The builder has left it out of the policy's interpreters: the key itself means nothing.
        assert_eq!(values(allow.clone()), without);
        let numbers = Numbers {
            interpreters: vec![502],
            ..machine()
        };
        let seal = Seal {
            allow,
            ..Seal::default()
        };
        let with = configure(&seal, false, &numbers).unwrap().values;
        without.interpreters[..2].copy_from_slice(&[502, UNUSED]);
        without.interpreter_bloom = bloom_bit(502);
        assert_eq!(with, without);
        assert_ne!(bloom_bit(501), bloom_bit(502));
    }

    #[test]
    fn exceptions_without_an_object_set_nothing_but_the_bit_for_mounts() {
        let seal = Seal {
            allow: Allow {
                disks: names("data"),
                mounts: names("/srv"),
                ..Allow::default()
            },
            ..Seal::default()
        };
        let configuration = configure(&seal, false, &machine()).unwrap();
        assert_eq!(
            configuration.without_object,
            ["the disk has no partition \"data\"", "there is no /srv"]
        );
        let mut without = values(Allow::default());
        without.allowances = allowance::MOUNTS;
        assert_eq!(configuration.values, without);
    }

    #[test]
    fn more_objects_than_the_guard_has_room_for_are_an_error() {
        let numbers = Numbers {
            interpreters: (1..34).collect(),
            ..machine()
        };
        let why = configure(&Seal::default(), false, &numbers).map(drop);
        assert_eq!(
            why,
            Err("33 interpreters, but the guard has room for 32".to_owned())
        );
    }

    #[test]
    fn the_policys_limits_fit_into_the_guards_lists() {
        use adamant_contract::policy::{MAX_INTERPRETERS, MAX_SEAL_NAMES, MAX_VOLUMES};
        let config = GuardConfig::new_zeroed();
        assert_eq!(config.interpreters.len(), MAX_INTERPRETERS);
        assert_eq!(config.mount_points.len(), MAX_SEAL_NAMES);
        assert_eq!(
            config.agent_owned.len(),
            MAX_VOLUMES * (1 + AGENT_FILES.len())
        );
        // /proc, /sys, /dev, /run, /dev/shm, /tmp and the guard's links.
        const OTHERS: usize = 7;
        assert!(config.devices.len() >= MAX_VOLUMES + MAX_SEAL_NAMES + OTHERS);
    }
}
