//! The guard's configuration: the numbers by which the running kernel knows the image, the host,
//! the volumes and the exceptions of the policy.
//!
//! In two steps: [`super::numbers`] asks the machine, [`configure`] combines the answers with the
//! policy. The layout is generated from agent/bpf/guard.bpf.c, see [`crate::kernel::guard_abi`].

use std::collections::BTreeMap;

use adamant_contract::policy::Seal;
use adamant_contract::report::BootReport;

use super::super::identity::Identified;
use super::numbers::Numbers;
use crate::kernel::clock::latest_time;
use crate::kernel::guard_abi::{GuardConfig, UNUSED, allowance, device_flags};

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
        (allow.transient_units, allowance::TRANSIENT_UNITS),
        (!allow.mounts.is_empty(), allowance::MOUNTS),
        (modules_on_request, allowance::MODULES),
    ];
    let values = GuardConfig {
        root_device: numbers.root_device,
        run_device: numbers.run_device,
        host_namespace: numbers.host_namespace,
        root_mount: u64::from(numbers.root_mount),
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
        latest_time: latest_time(numbers.build_time),
        black_box: u64::from(numbers.black_box),
        interpreter_bloom: numbers
            .interpreters
            .iter()
            .fold(0, |bloom, inode| bloom | bloom_bit(*inode)),
        devices: sorted("devices", devices)?,
        mount_points: sorted("[seal.allow] mounts", mount_points)?,
        agent_owned: sorted("files of the agent on volumes", numbers.agent_owned.clone())?,
        pinned: sorted("directories above mount points", numbers.pinned.clone())?,
        interpreters: sorted("interpreters", numbers.interpreters.clone())?,
        clocks: sorted("programs that set the clock", numbers.clocks.clone())?,
        ioctls: sorted(
            "[seal.allow] ioctls",
            allow.ioctls.iter().copied().map(u64::from).collect(),
        )?,
    };
    Ok(Configuration {
        values,
        without_object,
    })
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

#[cfg(test)]
mod tests {
    use adamant_contract::policy::Allow;
    use zerocopy::{FromZeros, IntoBytes};

    use super::super::numbers::{AGENT_FILES, PINNED};
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
            (
                "transient_units",
                |allow| allow.transient_units = true,
                allowance::TRANSIENT_UNITS,
            ),
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
    fn an_allowed_request_is_one_list_entry_and_nothing_else_changes() {
        let mut without = values(Allow::default());
        let with = values(Allow {
            ioctls: vec![0xc048_4e41],
            ..Allow::default()
        });
        without.ioctls[0] = 0xc048_4e41;
        assert_eq!(with, without);
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
        assert_eq!(config.pinned.len(), PINNED);
        assert_eq!(config.interpreters.len(), MAX_INTERPRETERS);
        assert_eq!(config.mount_points.len(), MAX_SEAL_NAMES);
        // The directory of the agent's state is one more.
        assert!(config.agent_owned.len() > MAX_VOLUMES * (1 + AGENT_FILES.len()));
        // /proc, /sys, /dev, /run, /dev/shm, /tmp and the guard's links.
        const OTHERS: usize = 7;
        assert!(config.devices.len() >= MAX_VOLUMES + MAX_SEAL_NAMES + OTHERS);
    }
}
