//! Findings about mounts: mounts over the image or a volume, missing volumes, missing flags.
//!
//! The source is the kernel's table, see proc_pid_mountinfo(5).

use adamant_contract::policy::{Level, Policy, is_below};

use super::finding::{Class, Finding};

/// One line of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Mount {
    id: u32,
    parent: u32,
    /// `MAJOR:MINOR` of the superblock.
    device: String,
    /// The directory or file of the file system that is mounted.
    root: String,
    point: String,
    /// Flags of the mount itself, each followed by a comma.
    flags: String,
    kind: String,
}

/// Mount points of kernel and memory file systems, and the flags that they must have.
const KERNELS: [(&str, &str); 7] = [
    ("/proc", ""),
    ("/sys", ""),
    ("/dev", "nosuid,noexec"),
    ("/run", "nosuid,noexec"),
    ("/tmp", "nosuid,noexec"),
    ("/dev/shm", "nosuid,noexec"),
    ("/etc/machine-id", ""),
];
/// File systems that may be mounted inside /proc and /sys.
const WITHIN: [&str; 12] = [
    "cgroup2",
    "cgroup",
    "securityfs",
    "pstore",
    "efivarfs",
    "bpf",
    "debugfs",
    "tracefs",
    "configfs",
    "fusectl",
    "binfmt_misc",
    "autofs",
];

impl Mount {
    /// Parses a line; `None` if it is malformed.
    pub fn parse(line: &str) -> Option<Mount> {
        let (of_mount, of_super) = line.split_once(" - ")?;
        let mut words = of_mount.split(' ');
        let (id, parent, device) = (
            words.next()?.parse().ok()?,
            words.next()?.parse().ok()?,
            words.next()?,
        );
        let (root, point, flags) = (words.next()?, words.next()?, words.next()?);
        Some(Mount {
            id,
            parent,
            device: device.to_owned(),
            root: unescaped(root),
            point: unescaped(point),
            flags: [flags, ","].concat(),
            kind: of_super.split(' ').next()?.to_owned(),
        })
    }

    /// The flags in `wanted` that the mount lacks.
    fn lacks<'a>(&self, wanted: &'a str) -> Vec<&'a str> {
        wanted
            .split(',')
            .filter(|flag| !flag.is_empty() && !self.flags.split(',').any(|own| own == *flag))
            .collect()
    }
}

/// Decodes the kernel's escapes: a backslash and three octal digits for blanks, line feeds and
/// backslashes.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) if byte.is_ascii() => {
                out.push(byte.into());
                out += &part[3..];
            }
            _ => {
                out.push('\\');
                out += part;
            }
        }
    }
    out
}

/// Adds a finding for each mount that differs from the policy. `label` maps a device number to the
/// partition's label.
pub fn compare(
    table: &[Mount],
    policy: &Policy,
    label: &dyn Fn(&str) -> Option<String>,
    found: &mut Vec<Finding>,
) {
    let mut add = |what: &str, is: String, should: String| {
        found.push(Finding::new(Class::Mounts, what, &is, &should))
    };
    let parent = |mount: &Mount| {
        table
            .iter()
            .find(|other| other.id == mount.parent && other.id != mount.id)
    };
    // A mount on top of another at the same mount point is not the expected one.
    let first = |point: &str| {
        table.iter().find(|mount| {
            mount.point == point && parent(mount).is_none_or(|parent| parent.point != point)
        })
    };
    let flags = |mount: &Mount, wanted: &str| {
        let lacks = mount.lacks(wanted);
        (!lacks.is_empty()).then(|| (["without ", &lacks.join(",")].concat(), wanted.to_owned()))
    };
    let mut known: Vec<u32> = Vec::new();
    let mut covered: Vec<&str> = Vec::new();
    match first("/") {
        None => add("/", "not mounted".to_owned(), "the image".to_owned()),
        Some(root) => {
            known.push(root.id);
            covered.push(&root.device);
            if root.kind != "erofs" {
                add("/", root.kind.clone(), "erofs".to_owned());
            }
            if let Some((is, should)) = flags(root, "ro") {
                add("/", is, should);
            }
        }
    }
    for volume in &policy.volumes {
        let should = ["volume ", &volume.name].concat();
        let Some(mount) = first(&volume.mount) else {
            add(&volume.mount, "not mounted".to_owned(), should);
            continue;
        };
        known.push(mount.id);
        covered.push(&mount.device);
        match label(&mount.device) {
            Some(label) if label == volume.name => {}
            other => add(
                &volume.mount,
                other.map_or_else(
                    || [&mount.kind, " on ", &mount.device].concat(),
                    |label| ["partition ", &label].concat(),
                ),
                should,
            ),
        }
        let executable = policy.seal.allow.execute.contains(&volume.name);
        if let Some((is, should)) = flags(
            mount,
            if executable {
                "nosuid,nodev"
            } else {
                "nosuid,nodev,noexec"
            },
        ) {
            add(&volume.mount, is, should);
        }
    }
    for path in &policy.image_data {
        let should = "the image's, read-only".to_owned();
        match first(path) {
            None => add(path, "not mounted".to_owned(), should),
            Some(mount) => {
                known.push(mount.id);
                if covered.first().is_none_or(|root| mount.device != *root) || mount.root != *path {
                    add(
                        path,
                        [&mount.kind, " ", &mount.root, " on ", &mount.device].concat(),
                        should,
                    );
                } else if let Some((is, should)) = flags(mount, "ro,nosuid,nodev,noexec") {
                    add(path, is, should);
                }
            }
        }
    }
    for (point, wanted) in KERNELS {
        let Some(mount) = first(point).filter(|mount| !known.contains(&mount.id)) else {
            continue;
        };
        known.push(mount.id);
        if let Some((is, should)) = flags(mount, wanted) {
            add(point, is, should);
        }
    }
    for mount in table.iter().filter(|mount| !known.contains(&mount.id)) {
        let Some(parent) = parent(mount) else {
            continue;
        };
        let over = covered.contains(&parent.device.as_str());
        // An automount point is covered by the mount that it triggers.
        let stacked = parent.point == mount.point && parent.kind != "autofs";
        let strange = matches!(parent.kind.as_str(), "proc" | "sysfs")
            && !WITHIN.contains(&mount.kind.as_str());
        let allowed = policy
            .seal
            .allow
            .mounts
            .iter()
            .any(|place| mount.point == *place || is_below(&mount.point, place));
        // systemd mounts the ESP on access. With the guard, the agent disables that.
        let esp =
            policy.seal.level < Level::Guard && matches!(mount.point.as_str(), "/efi" | "/boot");
        if (over || stacked || strange) && !allowed && !esp {
            add(
                &mount.point,
                [&mount.kind, " over it"].concat(),
                "not mounted over".to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
20 1 254:0 / / ro,nodev,relatime - erofs /dev/dm-0 ro
21 20 0:4 / /proc rw,nosuid,nodev,noexec - proc proc rw
22 20 0:5 / /sys rw,nosuid,nodev,noexec - sysfs sysfs rw
23 20 0:6 / /dev rw,nosuid,noexec - devtmpfs dev rw
24 20 0:7 / /run rw,nosuid,nodev,noexec - tmpfs run rw
25 20 253:3 / /var rw,nosuid,nodev,noexec - ext4 /dev/vda3 rw
26 25 253:4 / /var/log rw,nosuid,nodev,noexec - ext4 /dev/vda4 rw
27 20 0:7 /adamant/machine-id /etc/machine-id ro - tmpfs run rw
28 22 0:8 / /sys/kernel/security rw,nosuid,nodev,noexec - securityfs securityfs rw
29 21 0:9 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
30 29 0:10 / /proc/sys/fs/binfmt_misc rw,nosuid,nodev,noexec - binfmt_misc binfmt_misc rw
31 24 0:11 / /run/credentials/a.service ro - tmpfs tmpfs rw
32 20 0:12 / /tmp rw,nosuid,nodev,noexec - tmpfs tmpfs rw
33 25 254:0 /var/lib/dpkg /var/lib/dpkg ro,nosuid,nodev,noexec,relatime - erofs /dev/dm-0 ro
";

    fn lines(table: &str) -> Vec<String> {
        let policy = r#"{"version": 1, "image": {"id": "a", "version": "1"}, "seal": {"level": "guard", "allow": {"mounts": ["/srv/containers"]}},
            "volume": [{"name": "state", "mount": "/var"}, {"name": "logs", "mount": "/var/log"}], "image_data": ["/var/lib/dpkg"]}"#;
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        let label = |device: &str| match device {
            "253:3" => Some("state".to_owned()),
            "253:4" => Some("logs".to_owned()),
            _ => None,
        };
        let table: Vec<Mount> = table
            .lines()
            .map(|line| Mount::parse(line).unwrap())
            .collect();
        let mut found = Vec::new();
        compare(&table, &policy, &label, &mut found);
        found.iter().map(Finding::line).collect()
    }

    #[test]
    fn a_freshly_booted_server_has_no_findings() {
        assert_eq!(lines(TABLE), [""; 0]);
    }

    #[test]
    fn covering_mounts_and_missing_flags_are_found() {
        for (more, line) in [
            (
                "40 20 0:30 / /usr rw - tmpfs x rw",
                "mounts: /usr: is tmpfs over it, should be not mounted over",
            ),
            (
                "40 25 0:30 / /var/lib/a\\040b rw - tmpfs x rw",
                "mounts: /var/lib/a b: is tmpfs over it, should be not mounted over",
            ),
            (
                "40 25 0:30 / /var rw,nosuid,nodev,noexec - tmpfs x rw",
                "mounts: /var: is tmpfs over it, should be not mounted over",
            ),
            (
                "40 21 0:30 / /proc/cmdline rw - tmpfs x rw",
                "mounts: /proc/cmdline: is tmpfs over it, should be not mounted over",
            ),
            (
                "40 21 0:4 / /proc rw - proc x rw",
                "mounts: /proc: is proc over it, should be not mounted over",
            ),
            (
                "40 20 0:30 / / ro - erofs x rw",
                "mounts: /: is erofs over it, should be not mounted over",
            ),
            (
                "40 33 0:30 / /var/lib/dpkg ro - tmpfs x rw",
                "mounts: /var/lib/dpkg: is tmpfs over it, should be not mounted over",
            ),
            (
                "40 33 0:30 / /var/lib/dpkg/info ro - tmpfs x rw",
                "mounts: /var/lib/dpkg/info: is tmpfs over it, should be not mounted over",
            ),
            (
                "40 25 254:0 /usr /var/www ro - erofs x ro",
                "mounts: /var/www: is erofs over it, should be not mounted over",
            ),
        ] {
            assert_eq!(lines(&[TABLE, more, "\n"].concat()), [line]);
        }
        for (from, to, line) in [
            (
                "/ / ro,nodev",
                "/ / rw,nodev",
                "mounts: /: is without ro, should be ro",
            ),
            (
                "/var rw,nosuid,nodev,noexec",
                "/var rw,nosuid,nodev",
                "mounts: /var: is without noexec, should be nosuid,nodev,noexec",
            ),
            (
                "/tmp rw,nosuid,nodev,noexec",
                "/tmp rw,nodev",
                "mounts: /tmp: is without nosuid,noexec, should be nosuid,noexec",
            ),
            (
                "26 25 253:4 / /var/log",
                "26 25 253:9 / /var/log",
                "mounts: /var/log: is ext4 on 253:9, should be volume logs",
            ),
            (
                "26 25 253:4 / /var/log",
                "26 24 253:4 / /run/log",
                "mounts: /var/log: is not mounted, should be volume logs",
            ),
            (
                "/var/lib/dpkg /var/lib/dpkg ro,",
                "/var/lib/dpkg /var/lib/dpkg rw,",
                "mounts: /var/lib/dpkg: is without ro, should be ro,nosuid,nodev,noexec",
            ),
            (
                "33 25 254:0 /var/lib/dpkg",
                "33 25 254:0 /usr",
                "mounts: /var/lib/dpkg: is erofs /usr on 254:0, should be the image's, read-only",
            ),
            (
                "33 25 254:0",
                "33 25 253:3",
                "mounts: /var/lib/dpkg: is erofs /var/lib/dpkg on 253:3, should be the image's, read-only",
            ),
        ] {
            assert_eq!(lines(&TABLE.replace(from, to)), [line]);
        }
        for allowed in [
            "40 20 0:30 / /srv/containers rw - overlay x rw",
            "40 20 0:30 / /srv/containers/a rw - overlay x rw",
            "40 24 0:30 / /run/user/0 rw - tmpfs x rw",
        ] {
            assert_eq!(lines(&[TABLE, allowed, "\n"].concat()), [""; 0]);
        }
    }

    #[test]
    fn malformed_lines_are_rejected() {
        for line in [
            "",
            "1 2",
            "x 1 0:1 / / ro - erofs a ro",
            "1 2 0:1 / / ro erofs a ro",
        ] {
            assert_eq!(Mount::parse(line), None);
        }
        assert_eq!(
            (unescaped("a\\040b\\134c"), unescaped("a\\9x\\")),
            ("a b\\c".to_owned(), "a\\9x\\".to_owned())
        );
    }
}
