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
pub struct Rule {
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
const PLAIN: Rule = Rule {
    name: "",
    paths: &[],
    action: Action::Remove,
    reason: "",
    is_secret: false,
    server: None,
};
/// A rule for a secret that a service creates at its start.
const SECRET: Rule = Rule {
    is_secret: true,
    ..PLAIN
};

/// The rule for the snakeoil certificate; links to it are named after the host name of the building
/// machine.
pub const SNAKEOIL: &str = "snakeoil-certificate";

/// In the order of reports. The first rule that matches a path decides.
pub const RULES: &[Rule] = &[
    Rule {
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
        reason: "each server makes its own",
        ..SECRET
    },
    Rule {
        name: "dbus-machine-id",
        paths: &["/var/lib/dbus/machine-id"],
        action: Action::RemoveFile,
        reason: "a copy of /etc/machine-id",
        ..PLAIN
    },
    Rule {
        name: "random-seeds",
        paths: &[
            "/var/lib/systemd/random-seed",
            "/var/lib/urandom/random-seed",
            "/{boot,efi,boot/efi}/loader/random-seed",
            "/var/lib/random-seed",
        ],
        action: Action::Remove,
        reason: "a seed that two servers share is none",
        ..SECRET
    },
    Rule {
        name: "credential-secrets",
        paths: &[
            "/var/lib/systemd/credential.secret",
            "/var/lib/systemd/tpm2-srk-public-key.*",
            "/var/lib/NetworkManager/secret_key",
        ],
        action: Action::Remove,
        reason: "the key that a server's credentials are sealed with",
        ..SECRET
    },
    Rule {
        name: "storage-identity",
        paths: &["/etc/iscsi/initiatorname.iscsi", "/etc/nvme/host{id,nqn}"],
        action: Action::Remove,
        reason: "the name under which a storage server knows one server",
        ..PLAIN
    },
    Rule {
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
        reason: "addresses of the building machine",
        ..PLAIN
    },
    Rule {
        name: "rndc-key",
        paths: &["/etc/bind/rndc.key"],
        reason: "bind9 makes it at its installation",
        server: Some(
            "named runs without it. For rndc, make one on the volume when the server starts: rndc-confgen -a -c /var/lib/bind/rndc.key,\n\
             and name it with rndc -k and in a controls statement of named.conf",
        ),
        ..SECRET
    },
    Rule {
        name: "munge-key",
        paths: &["/etc/munge/munge.key"],
        reason: "munge makes it at its installation",
        server: Some(
            "munged needs a key that all hosts of a cluster share: hand it over as a systemd credential, or make one on the volume with\n\
             mungekey -c -k /var/lib/munge/munge.key, and write OPTIONS=\"--key-file=/var/lib/munge/munge.key\" into /etc/default/munge",
        ),
        ..SECRET
    },
    Rule {
        name: "erlang-cookie",
        paths: &["/**/.erlang.cookie"],
        reason: "rabbitmq-server makes it at its installation; Erlang makes a new one at its start",
        ..SECRET
    },
    Rule {
        name: "dns-control-keys",
        paths: &[
            "/etc/unbound/unbound_{control,server}.{key,pem}",
            "/etc/nsd/nsd_{control,server}.{key,pem}",
        ],
        reason: "unbound and nsd make them at their installation",
        server: Some(
            "the servers run without them. For unbound-control and nsd-control, set control-interface to a path: a Unix socket needs no keys",
        ),
        ..SECRET
    },
    Rule {
        name: SNAKEOIL,
        paths: &[
            "/etc/ssl/private/ssl-cert-snakeoil.key",
            "/etc/ssl/certs/ssl-cert-snakeoil.pem",
        ],
        reason: "ssl-cert makes it at its installation, for the building machine's name",
        server: Some(
            "services that name it (postgresql, dovecot, xrdp, web servers) need a certificate of their own: make it on a volume when the server\n\
             starts, or hand it over as a systemd credential, and name its path in their configuration",
        ),
        ..SECRET
    },
    Rule {
        name: "xrdp-key",
        paths: &["/etc/xrdp/rsakeys.ini"],
        reason: "xrdp makes it at its installation",
        server: Some(
            "write security_layer=tls into /etc/xrdp/xrdp.ini, with certificate and key_file on a volume: only RDP's own encryption needs this key",
        ),
        ..SECRET
    },
    Rule {
        name: "host-id",
        paths: &["/etc/hostid"],
        reason: "the number by which storage knows one server",
        server: Some(
            "ZFS takes a server's own number from the kernel argument spl.spl_hostid, or from the path in spl.spl_hostid_path",
        ),
        ..PLAIN
    },
    Rule {
        name: "tor-keys",
        paths: &["/var/lib/tor/keys/**"],
        reason: "the identity of one relay; tor makes a new one at its start",
        ..SECRET
    },
    Rule {
        name: "salt-minion-key",
        paths: &["/etc/salt/pki/minion/minion.{pem,pub}"],
        reason: "the identity of one minion",
        server: Some(
            "write pki_dir: /var/lib/salt/pki/minion into /etc/salt/minion: salt-minion then makes its key on the volume",
        ),
        ..SECRET
    },
    Rule {
        name: "mysql-identity",
        paths: &[
            "/var/lib/mysql/auto.cnf",
            "/var/lib/mysql/{ca,ca-key,server-cert,server-key,client-cert,client-key,private_key,public_key}.pem",
        ],
        reason: "made when a database is made; mysqld makes new ones at its start",
        ..SECRET
    },
    Rule {
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
        reason: "the identity of one server in a network; made anew at the service's start",
        ..SECRET
    },
    Rule {
        name: "reporting-identity",
        paths: &[
            "/etc/popularity-contest.conf",
            "/etc/cron.d/popularity-contest",
            "/var/lib/whoopsie/whoopsie-id",
        ],
        reason: "a random number or minute from the package's installation",
        ..PLAIN
    },
    Rule {
        name: "disks",
        paths: &[
            "/etc/multipath/{wwids,bindings,prkeys}",
            "/etc/zfs/zpool.cache",
            "/etc/lvm/{archive,backup}/**",
            "/etc/lvm/devices/**",
        ],
        reason: "disks of the building machine",
        ..PLAIN
    },
    Rule {
        name: "session-cookies",
        paths: &[
            "/**/.{Xauthority,ICEauthority}",
            "/**/.config/pulse/cookie",
            "/**/.rnd",
            "/**/.gnupg/random_seed",
        ],
        reason: "made by programs of a user on the building machine",
        ..SECRET
    },
    Rule {
        name: "cloud-init-state",
        paths: &["/var/lib/cloud/**"],
        action: Action::Remove,
        reason: "says that this server was set up already",
        ..PLAIN
    },
    Rule {
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
    Rule {
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
        ..PLAIN
    },
    Rule {
        name: "old-logs",
        paths: &[
            "/var/log/journal/**",
            "/var/log/**/*.{gz,xz,zst,bz2,old,[0-9]}",
            "/var/log/installer/**",
        ],
        action: Action::Remove,
        reason: "what happened on the building machine",
        ..PLAIN
    },
    Rule {
        name: "logs",
        paths: &["/var/log/**"],
        action: Action::Empty,
        reason: "what happened on the building machine; owner and mode are kept",
        ..PLAIN
    },
    Rule {
        name: "ldconfig",
        paths: &["/var/cache/ldconfig/**"],
        action: Action::Remove,
        reason: "holds inode numbers and times",
        ..PLAIN
    },
    Rule {
        name: "caches",
        paths: &["/var/cache/man/**", "/var/cache/fontconfig/**"],
        action: Action::Remove,
        reason: "hold times; made again when they are needed",
        ..PLAIN
    },
    Rule {
        name: "python-bytecode",
        paths: &["/**/*.pyc"],
        action: Action::RemoveTimedBytecode,
        reason: "holds the time of its source",
        ..PLAIN
    },
    Rule {
        name: "initramfs",
        paths: &[
            "/boot/initr{d,amfs}*",
            "/initrd.img*",
            "/var/lib/initramfs-tools/*",
        ],
        action: Action::Remove,
        reason: "made by the building machine's time and place; the image starts from the builder's own",
        ..PLAIN
    },
    Rule {
        name: "account-backups",
        paths: &[
            "/etc/{passwd,group,shadow,gshadow,subuid,subgid}-",
            "/etc/.pwd.lock",
        ],
        action: Action::Remove,
        reason: "the state before the last change",
        ..PLAIN
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
        ..PLAIN
    },
    Rule {
        name: "temporary-files",
        paths: &["/run/**", "/tmp/**", "/var/tmp/**"],
        action: Action::Remove,
        reason: "left over by the build",
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
