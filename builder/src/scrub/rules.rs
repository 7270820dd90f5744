//! What is removed, as a table: a name, the paths, what happens to them, and why.

use crate::tree::{Content, Kind, Node};

/// What happens to an entry that a rule names. Directories always stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The entry goes.
    Remove,
    /// The file stays with its owner and mode, its bytes go.
    Empty,
    /// A regular file goes, a symbolic link stays.
    RemoveFile,
    /// Python's byte code goes when it is valid by the time of its source; by the source's hash it stays (PEP 552).
    RemoveTimedBytecode,
}

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// How counts, messages and documents call it.
    pub name: &'static str,
    /// Globs over absolute paths.
    pub paths: &'static [&'static str],
    /// What happens.
    pub action: Action,
    /// Why.
    pub reason: &'static str,
}

/// In the order in which they are reported. The first rule that names a path decides.
pub const RULES: &[Rule] = &[
    Rule {
        name: "ssh-host-keys",
        paths: &["/etc/ssh/ssh_host_*", "/etc/dropbear/dropbear_*_host_key"],
        action: Action::Remove,
        reason: "each server makes its own",
    },
    Rule { name: "dbus-machine-id", paths: &["/var/lib/dbus/machine-id"], action: Action::RemoveFile, reason: "a copy of /etc/machine-id" },
    Rule {
        name: "random-seeds",
        paths: &["/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/{boot,efi,boot/efi}/loader/random-seed", "/var/lib/random-seed"],
        action: Action::Remove,
        reason: "a seed that two servers share is none",
    },
    Rule {
        name: "credential-secrets",
        paths: &["/var/lib/systemd/credential.secret", "/var/lib/systemd/tpm2-srk-public-key.*", "/var/lib/NetworkManager/secret_key"],
        action: Action::Remove,
        reason: "the key that a server's credentials are sealed with",
    },
    Rule {
        name: "storage-identity",
        paths: &["/etc/iscsi/initiatorname.iscsi", "/etc/nvme/host{id,nqn}"],
        action: Action::Remove,
        reason: "the name under which a storage server knows one server",
    },
    Rule {
        name: "dhcp-leases",
        paths: &[
            "/var/lib/dhcp/*lease*",
            "/var/lib/dhcp{cd,cd5}/*",
            "/var/lib/NetworkManager/*.lease",
            "/var/lib/systemd/network/**",
            "/var/lib/NetworkManager/{timestamps,seen-bssids}",
        ],
        action: Action::Remove,
        reason: "addresses of the building machine",
    },
    Rule { name: "cloud-init-state", paths: &["/var/lib/cloud/**"], action: Action::Remove, reason: "says that this server was set up already" },
    Rule {
        name: "clocks",
        paths: &["/var/lib/systemd/timesync/clock", "/var/lib/systemd/timers/stamp-*", "/var/lib/private/systemd/timesync/clock"],
        action: Action::Remove,
        reason: "the time of the build",
    },
    Rule {
        name: "apt",
        paths: &["/var/cache/apt/**", "/var/lib/apt/lists/**", "/var/lib/apt/periodic/**", "/var/log/apt/**"],
        action: Action::Remove,
        reason: "caches and logs of the build",
    },
    Rule {
        name: "dpkg",
        paths: &[
            "/var/lib/dpkg/*-old",
            "/var/cache/debconf/*-old",
            "/var/lib/ucf/*.[0-9]",
            "/var/backups/**",
            "/var/log/{dpkg,alternatives,bootstrap,apt,fontconfig}.log",
        ],
        action: Action::Remove,
        reason: "back-ups and logs of the build",
    },
    Rule {
        name: "old-logs",
        paths: &["/var/log/journal/**", "/var/log/**/*.{gz,xz,zst,bz2,old,[0-9]}", "/var/log/installer/**"],
        action: Action::Remove,
        reason: "what happened on the building machine",
    },
    Rule { name: "logs", paths: &["/var/log/**"], action: Action::Empty, reason: "what happened on the building machine; owner and mode are kept" },
    Rule { name: "ldconfig", paths: &["/var/cache/ldconfig/**"], action: Action::Remove, reason: "holds inode numbers and times" },
    Rule {
        name: "caches",
        paths: &["/var/cache/man/**", "/var/cache/fontconfig/**"],
        action: Action::Remove,
        reason: "hold times; made again when they are needed",
    },
    Rule { name: "python-bytecode", paths: &["/**/*.pyc"], action: Action::RemoveTimedBytecode, reason: "holds the time of its source" },
    Rule {
        name: "initramfs",
        paths: &["/boot/initr{d,amfs}*", "/initrd.img*", "/var/lib/initramfs-tools/*"],
        action: Action::Remove,
        reason: "made by the building machine's time and place; the image starts from the builder's own",
    },
    Rule {
        name: "account-backups",
        paths: &["/etc/{passwd,group,shadow,gshadow,subuid,subgid}-", "/etc/.pwd.lock"],
        action: Action::Remove,
        reason: "the state before the last change",
    },
    Rule {
        name: "editor-backups",
        paths: &[
            "/**/*~",
            "/**/.*.sw[a-p]",
            "/**/#*#",
            "/**/*.dpkg-{old,new,dist,tmp,bak,remove}",
            "/**/*.ucf-{old,new,dist,tmp}",
            "/**/*.rpm{save,new,orig}",
            "/etc/.resolv.conf.systemd-resolved.bak",
        ],
        action: Action::Remove,
        reason: "left over by an editor or an upgrade",
    },
    Rule { name: "temporary-files", paths: &["/run/**", "/tmp/**", "/var/tmp/**"], action: Action::Remove, reason: "left over by the build" },
];

impl Action {
    /// Whether this action changes this entry.
    pub fn concerns(self, node: &Node) -> bool {
        match (self, &node.kind) {
            (_, Kind::Directory(_)) => false,
            (Action::Remove, _) => true,
            (Action::Empty, Kind::File(content)) => !content.is_empty(),
            (Action::RemoveFile, Kind::File(_)) => true,
            (Action::RemoveTimedBytecode, Kind::File(content)) => is_timed(content),
            _ => false,
        }
    }
}

/// Whether byte code is valid by a time: all of it before Python 3.7 (magic number 3390), since then with bit 0 of the flags clear. What is
/// too short to be byte code is of no use either.
fn is_timed(content: &Content) -> bool {
    let mut header = [0; 8];
    if content.read_exact_at(0, &mut header).is_err() {
        return true;
    }
    let [low, high, _, _, flags, ..] = header;
    let magic = u16::from_le_bytes([low, high]);
    !(3390..20000).contains(&magic) || flags & 1 == 0
}
