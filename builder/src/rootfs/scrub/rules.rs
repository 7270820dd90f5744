//! The table of scrub rules: a name, paths, an action and the reason.

use crate::tree::{Content, Kind, Node};

/// The action on an entry that matches a rule. Directories are never removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Removes the entry.
    Remove,
    /// Empties the file; owner and mode stay.
    Empty,
    /// Removes a regular file; a symbolic link stays.
    RemoveFile,
    /// Removes Python byte code that is validated by the time of its source. Byte code that is
    /// validated by the hash of its source stays (PEP 552).
    RemoveTimedBytecode,
}

/// A rule.
#[derive(Debug)]
pub struct ScrubRule {
    /// Name in counts, messages and documents.
    pub name: &'static str,
    /// Globs over absolute paths.
    pub paths: &'static [&'static str],
    /// The action.
    pub action: Action,
    /// The reason.
    pub reason: &'static str,
    /// Whether the file holds a secret, which must not stay under another name.
    pub is_secret: bool,
    /// How to create the file on each server, if a service needs it and does not create it.
    pub server: Option<&'static str>,
}

/// A rule without secret and without a service that needs the file, as most rules are.
const PLAIN: ScrubRule = ScrubRule {
    name: "",
    paths: &[],
    action: Action::Remove,
    reason: "",
    is_secret: false,
    server: None,
};
/// A rule for a secret that a service creates at its start.
const SECRET: ScrubRule = ScrubRule {
    is_secret: true,
    ..PLAIN
};

/// The rule for the snakeoil certificate; links to it are named after the host name of the building
/// machine.
pub const SNAKEOIL: &str = "snakeoil-certificate";

/// In the order of reports. The first rule that matches a path decides.
pub const RULES: &[ScrubRule] = &[
    ScrubRule {
        name: "ssh-host-keys",
        paths: &[
            "/etc/ssh/ssh_host_*",
            "/etc/dropbear/dropbear_*_host_key",
            "/etc/dropbear/initramfs/dropbear_*_host_key",
            "/etc/dropbear-initramfs/dropbear_*_host_key",
            "/etc/tinyssh/sshkeydir/*",
            "/etc/lsh_host_key*",
        ],
        action: Action::Remove,
        reason: "keys of one server; each server creates its own",
        ..SECRET
    },
    ScrubRule {
        name: "dbus-machine-id",
        paths: &["/var/lib/dbus/machine-id"],
        action: Action::RemoveFile,
        reason: "a copy of /etc/machine-id",
        ..PLAIN
    },
    ScrubRule {
        name: "random-seeds",
        paths: &[
            "/var/lib/systemd/random-seed",
            "/var/lib/urandom/random-seed",
            "/{boot,efi,boot/efi}/loader/random-seed",
            "/var/lib/random-seed",
        ],
        action: Action::Remove,
        reason: "two servers must not share a seed",
        ..SECRET
    },
    ScrubRule {
        name: "credential-secrets",
        paths: &[
            "/var/lib/systemd/credential.secret",
            "/var/lib/systemd/tpm2-srk-public-key.*",
            "/var/lib/NetworkManager/secret_key",
        ],
        action: Action::Remove,
        reason: "keys that encrypt the credentials of one server",
        ..SECRET
    },
    ScrubRule {
        name: "storage-identity",
        paths: &["/etc/iscsi/initiatorname.iscsi", "/etc/nvme/host{id,nqn}"],
        action: Action::Remove,
        reason: "the name that identifies one server to storage",
        ..PLAIN
    },
    ScrubRule {
        name: "dhcp-leases",
        paths: &[
            "/var/lib/dhcp/*lease*",
            "/var/lib/dhcp{cd,cd5}/*",
            "/var/lib/NetworkManager/*.lease",
            "/var/lib/systemd/network/**",
            "/var/lib/NetworkManager/{timestamps,seen-bssids}",
            "/etc/dhcpcd.{duid,secret}",
            "/var/lib/dhcpv6/*duid",
        ],
        action: Action::Remove,
        reason: "network addresses of the build machine",
        ..PLAIN
    },
    ScrubRule {
        name: "rndc-key",
        paths: &["/etc/bind/rndc.key"],
        reason: "a key that the installation of bind9 creates",
        server: Some(
            "named runs without this key. For rndc, create one on the volume when the server starts: rndc-confgen -a -c /var/lib/bind/rndc.key,\n\
             and name its path with rndc -k and in a controls statement of named.conf",
        ),
        ..SECRET
    },
    ScrubRule {
        name: "munge-key",
        paths: &["/etc/munge/munge.key"],
        reason: "a key that the installation of munge creates",
        server: Some(
            "munged needs a key that all hosts of a cluster share: pass it as a systemd credential, or create one on the volume with\n\
             mungekey -c -k /var/lib/munge/munge.key, and write OPTIONS=\"--key-file=/var/lib/munge/munge.key\" into /etc/default/munge",
        ),
        ..SECRET
    },
    ScrubRule {
        name: "erlang-cookie",
        paths: &["/**/.erlang.cookie"],
        reason: "a secret that the installation of rabbitmq-server creates; Erlang creates a new one at its start",
        ..SECRET
    },
    ScrubRule {
        name: "dns-control-keys",
        paths: &[
            "/etc/unbound/unbound_{control,server}.{key,pem}",
            "/etc/nsd/nsd_{control,server}.{key,pem}",
        ],
        reason: "keys that the installation of unbound or nsd creates",
        server: Some(
            "the servers run without them. For unbound-control and nsd-control, set control-interface to a path: a Unix socket needs no keys",
        ),
        ..SECRET
    },
    ScrubRule {
        name: SNAKEOIL,
        paths: &[
            "/etc/ssl/private/ssl-cert-snakeoil.key",
            "/etc/ssl/certs/ssl-cert-snakeoil.pem",
        ],
        reason: "a key and a certificate that the installation of ssl-cert creates for the host name of the build machine",
        server: Some(
            "services that use this certificate (postgresql, dovecot, xrdp, web servers) need one of their own: create it on a volume when the server\n\
             starts, or pass it as a systemd credential, and write its path into their configuration",
        ),
        ..SECRET
    },
    ScrubRule {
        name: "xrdp-key",
        paths: &["/etc/xrdp/rsakeys.ini"],
        reason: "a key that the installation of xrdp creates",
        server: Some(
            "write security_layer=tls into /etc/xrdp/xrdp.ini, and set certificate and key_file to paths on a volume: only RDP's own encryption needs this key",
        ),
        ..SECRET
    },
    ScrubRule {
        name: "host-id",
        paths: &["/etc/hostid"],
        reason: "the number that identifies one server to storage",
        server: Some(
            "ZFS reads a server's own number from the kernel argument spl.spl_hostid, or from the path in spl.spl_hostid_path",
        ),
        ..PLAIN
    },
    ScrubRule {
        name: "tor-keys",
        paths: &["/var/lib/tor/keys/**"],
        reason: "the identity of one relay; tor creates a new one at its start",
        ..SECRET
    },
    ScrubRule {
        name: "salt-minion-key",
        paths: &["/etc/salt/pki/minion/minion.{pem,pub}"],
        reason: "the identity of one Salt minion",
        server: Some(
            "write pki_dir: /var/lib/salt/pki/minion into /etc/salt/minion: salt-minion then creates its key on the volume",
        ),
        ..SECRET
    },
    ScrubRule {
        name: "mysql-identity",
        paths: &[
            "/var/lib/mysql/auto.cnf",
            "/var/lib/mysql/{ca,ca-key,server-cert,server-key,client-cert,client-key,private_key,public_key}.pem",
        ],
        reason: "keys and identity of one database server; mysqld creates new ones at its start",
        ..SECRET
    },
    ScrubRule {
        name: "node-identity",
        paths: &[
            "/var/lib/zerotier-one/{identity.*,authtoken.secret}",
            "/var/lib/tailscale/**",
            "/etc/docker/key.json",
            "/var/lib/docker/engine-id",
            "/etc/openvswitch/system-id.conf",
            "/var/lib/glusterd/glusterd.info",
            "/var/lib/fwupd/pki/{secret.key,client.pem}",
        ],
        reason: "the identity of one server in a network; the service creates a new one at its start",
        ..SECRET
    },
    ScrubRule {
        name: "reporting-identity",
        paths: &[
            "/etc/popularity-contest.conf",
            "/etc/cron.d/popularity-contest",
            "/var/lib/whoopsie/whoopsie-id",
        ],
        reason: "a random number or minute, chosen at the installation of the package",
        ..PLAIN
    },
    ScrubRule {
        name: "disks",
        paths: &[
            "/etc/multipath/{wwids,bindings,prkeys}",
            "/etc/zfs/zpool.cache",
            "/etc/lvm/{archive,backup}/**",
            "/etc/lvm/devices/**",
        ],
        reason: "describes the disks of the build machine",
        ..PLAIN
    },
    ScrubRule {
        name: "session-cookies",
        paths: &[
            "/**/.{Xauthority,ICEauthority}",
            "/**/.config/pulse/cookie",
            "/**/.rnd",
            "/**/.gnupg/random_seed",
        ],
        reason: "session secrets of a user on the build machine",
        ..SECRET
    },
    ScrubRule {
        name: "cloud-init-state",
        paths: &["/var/lib/cloud/**"],
        action: Action::Remove,
        reason: "records that cloud-init has set up this server already",
        ..PLAIN
    },
    ScrubRule {
        name: "clocks",
        paths: &[
            "/var/lib/systemd/timesync/clock",
            "/var/lib/systemd/timers/stamp-*",
            "/var/lib/private/systemd/timesync/clock",
        ],
        action: Action::Remove,
        reason: "the time of the build",
        ..PLAIN
    },
    ScrubRule {
        name: "apt",
        paths: &[
            "/var/cache/apt/**",
            "/var/lib/apt/lists/**",
            "/var/lib/apt/periodic/**",
            "/var/log/apt/**",
        ],
        action: Action::Remove,
        reason: "caches and logs of the build",
        ..PLAIN
    },
    ScrubRule {
        name: "dpkg",
        paths: &[
            "/var/lib/dpkg/*-old",
            "/var/cache/debconf/*-old",
            "/var/lib/ucf/*.[0-9]",
            "/var/backups/**",
            "/var/log/{dpkg,alternatives,bootstrap,apt,fontconfig}.log",
        ],
        action: Action::Remove,
        reason: "backups and logs of the build",
        ..PLAIN
    },
    ScrubRule {
        name: "old-logs",
        paths: &[
            "/var/log/journal/**",
            "/var/log/**/*.{gz,xz,zst,bz2,old,[0-9]}",
            "/var/log/installer/**",
        ],
        action: Action::Remove,
        reason: "log entries of the build machine",
        ..PLAIN
    },
    ScrubRule {
        name: "logs",
        paths: &["/var/log/**"],
        action: Action::Empty,
        reason: "log entries of the build machine; the empty file stays, with its owner and mode",
        ..PLAIN
    },
    ScrubRule {
        name: "ldconfig",
        paths: &["/var/cache/ldconfig/**"],
        action: Action::Remove,
        reason: "contains inode numbers and times of the build",
        ..PLAIN
    },
    ScrubRule {
        name: "caches",
        paths: &["/var/cache/man/**", "/var/cache/fontconfig/**"],
        action: Action::Remove,
        reason: "contain times of the build; programs create them again when needed",
        ..PLAIN
    },
    ScrubRule {
        name: "python-bytecode",
        paths: &["/**/*.pyc"],
        action: Action::RemoveTimedBytecode,
        reason: "contains the modification time of its source",
        ..PLAIN
    },
    ScrubRule {
        name: "initramfs",
        paths: &[
            "/boot/initr{d,amfs}*",
            "/initrd.img*",
            "/var/lib/initramfs-tools/*",
        ],
        action: Action::Remove,
        reason: "contains times and paths of the build machine; the image uses the builder's own initramfs",
        ..PLAIN
    },
    ScrubRule {
        name: "account-backups",
        paths: &[
            "/etc/{passwd,group,shadow,gshadow,subuid,subgid}-",
            "/etc/.pwd.lock",
        ],
        action: Action::Remove,
        reason: "the content before the last change",
        ..PLAIN
    },
    ScrubRule {
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
        reason: "leftovers of an editor or an upgrade",
        ..PLAIN
    },
    ScrubRule {
        name: "temporary-files",
        paths: &["/run/**", "/tmp/**", "/var/tmp/**"],
        action: Action::Remove,
        reason: "leftovers of the build",
        ..PLAIN
    },
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

/// Whether byte code is validated by a time: all byte code before Python 3.7 (magic number 3390),
/// later if bit 0 of its flags is clear. A file too short for byte code is useless and counts as
/// well.
fn is_timed(content: &Content) -> bool {
    let mut header = [0; 8];
    if content.read_exact_at(0, &mut header).is_err() {
        return true;
    }
    let [low, high, _, _, flags, ..] = header;
    let magic = u16::from_le_bytes([low, high]);
    !(3390..20000).contains(&magic) || flags & 1 == 0
}
