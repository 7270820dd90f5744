//! Every key of a definition, with its type, default and description. Serde reads definitions with
//! these types, and docs/definition.md is generated from them.

use serde::Deserialize;
use toml::Spanned;

/// A table of the definition, for the reference.
pub struct TableReference {
    /// The header in the definition: `[root]`, `[[volume]]`.
    pub title: &'static str,
    /// Description.
    pub doc: &'static [&'static str],
    /// The keys, in the order of the reference.
    pub keys: &'static [KeyReference],
}

/// One key, for the reference.
pub struct KeyReference {
    /// Name in the definition.
    pub name: &'static str,
    /// Type of the value.
    pub shape: &'static str,
    /// Value if the key is missing.
    pub default: &'static str,
    /// Description.
    pub doc: &'static [&'static str],
}

/// Defines a table: the type that serde reads, with a span for each key, and its part of the
/// reference.
macro_rules! section {
    ($(#[doc = $section_doc:literal])* $title:literal $name:ident { $( $(#[doc = $doc:literal])* $key:ident : $type:ty = $shape:literal, $default:literal; )* }) => {
        $(#[doc = $section_doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default, expecting = "a table")]
        pub struct $name { $( $(#[doc = $doc])* pub $key: Option<Spanned<$type>>, )* }

        impl $name {
            /// The table's part of the reference.
            pub const SECTION: TableReference = TableReference {
                title: $title,
                doc: &[$($section_doc),*],
                keys: &[$( KeyReference { name: stringify!($key), shape: $shape, default: $default, doc: &[$($doc),*] } ),*],
            };
        }
    };
}

/// All tables of a definition.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct DefinitionTables {
    /// `[image]`
    pub image: Option<Spanned<ImageTable>>,
    /// `[[source]]`
    pub source: Vec<Spanned<SourceTable>>,
    /// `[[file]]`
    pub file: Vec<Spanned<FileTable>>,
    /// `[root]`
    pub root: Option<Spanned<RootTable>>,
    /// `[scrub]`
    pub scrub: Option<Spanned<ScrubTable>>,
    /// `volumes = []`
    pub volumes: Option<Spanned<Vec<toml::Value>>>,
    /// `[[volume]]`
    pub volume: Option<Spanned<Vec<Spanned<VolumeTable>>>>,
    /// `[verify]`
    pub verify: Option<Spanned<VerifyTable>>,
    /// `[credentials]`
    pub credentials: Option<Spanned<CredentialsTable>>,
    /// `[failure]`
    pub failure: Option<Spanned<FailureTable>>,
    /// `[seal]`
    pub seal: Option<Spanned<SealTable>>,
    /// `[on_violation]`
    pub on_violation: Option<Spanned<OnViolationTable>>,
    /// `[drift]`
    pub drift: Option<Spanned<DriftTable>>,
    /// `[kernel]`
    pub kernel: Option<Spanned<KernelTable>>,
    /// `[boot]`
    pub boot: Option<Spanned<BootTable>>,
    /// `[sign]`
    pub sign: Option<Spanned<SignTable>>,
    /// `[disk]`
    pub disk: Option<Spanned<DiskTable>>,
    /// `[limits]`
    pub limits: Option<Spanned<LimitsTable>>,
}

/// Every table, in the order of the reference.
pub const SECTIONS: &[TableReference] = &[
    ImageTable::SECTION,
    SourceTable::SECTION,
    DebianTable::SECTION,
    FileTable::SECTION,
    RootTable::SECTION,
    ScrubTable::SECTION,
    VolumeTable::SECTION,
    VerifyTable::SECTION,
    CredentialsTable::SECTION,
    FailureTable::SECTION,
    SealTable::SECTION,
    AllowTable::SECTION,
    OnViolationTable::SECTION,
    DriftTable::SECTION,
    KernelTable::SECTION,
    BootTable::SECTION,
    SignTable::SECTION,
    KeyTable::SECTION,
    DiskTable::SECTION,
    LimitsTable::SECTION,
];

section! {
    /// Identity of the image. `ID_VERSION` is the start of the names of artifacts and partitions. A
    /// partition label has room for 36 characters, so id and version together have at most 28.
    "[image]" ImageTable {
        /// IMAGE_ID, the same in every version: a-z 0-9 . _ -, starting with a letter or digit.
        id: String = "string", "required";
        /// IMAGE_VERSION, ordered as in the UAPI.10 version format: A-Z a-z 0-9 . ~ ^ -, starting
        /// with a letter or digit.
        version: String = "string", "required";
        /// Upper limit for modification times, so that the image does not depend on the time of the
        /// build. Newer times are set to it. Seconds since 1970 or an RFC 3339 date.
        epoch: toml::Value = "integer or date", "date of the archive with a `debian` source, else times are kept";
    }
}

section! {
    /// The origin of the image's files. Each source has exactly one of `debian`, `tar` and `dir`.
    /// Sources are applied in order; a later entry replaces an earlier one at the same path.
    /// Symbolic links of earlier sources are followed inside the image, so write the source with
    /// the root directory first. A link or file that would replace a directory with content is an
    /// error, because it would hide that content. Layers of container images and overlays (with
    /// whiteouts) are an error too: merge them first.
    "[[source]]" SourceTable {
        /// Debian packages, installed with mmdebstrap; see the next table.
        debian: Spanned<DebianTable> = "table", "";
        /// A tar archive: plain, gzip, zstd or xz, detected by its content. Entries keep their
        /// owners, modes, access control lists and extended attributes, except attributes that
        /// describe a file system (such as `btrfs.*` and `system.nfs4_acl`). Decompression uses at
        /// most 256 MiB for a zstd window or an xz dictionary. The path is relative to the
        /// definition.
        tar: String = "path", "";
        /// A directory. Unless `owner` is `keep`, every entry belongs to root:root, and write
        /// permission for group and others is removed (0664 becomes 0644, 2775 becomes 2755),
        /// except on directories with the sticky bit (1777). Access control lists and extended
        /// attributes other than `security.capability` are dropped. A directory of an earlier
        /// source keeps its owner and mode. The path is relative to the definition.
        dir: String = "path", "";
        /// Directory of the image for the content of the source.
        at: String = "absolute path", "`/`";
        /// With `dir`: `root`, or `keep` to keep owners, groups, modes, times, access control lists
        /// and the extended attributes `user.*`, `trusted.*` and `security.capability`, also on
        /// directories of earlier sources. Other attributes belong to the build machine (SELinux,
        /// btrfs, NFS) and are dropped.
        owner: String = "`root` or `keep`", "`root`";
        /// With `dir`: whether to include other file systems that are mounted below it.
        cross_mounts: bool = "boolean", "`false`";
    }
}

section! {
    /// Debian packages to install with mmdebstrap.
    "[[source]] debian = { ... }" DebianTable {
        /// The suite, for example `trixie`.
        suite: String = "string", "required";
        /// Packages to install in addition to those of the variant.
        packages: Vec<Spanned<String>> = "list of strings", "`[]`";
        /// mmdebstrap's variant: `extract`, `custom`, `essential`, `apt`, `minbase`, `buildd`,
        /// `important` or `standard`.
        variant: String = "string", "`important`";
        /// Debian's name of the architecture. Only `amd64` is supported yet.
        architecture: String = "string", "`amd64`";
        /// Components of the archive.
        components: Vec<Spanned<String>> = "list of strings", "`[\"main\"]`";
        /// Archives to use instead of Debian's own. Each value is an address, a `deb` line with
        /// options, or a deb822 stanza in a multi-line string. An address means the suite with its
        /// updates and security suites, as far as the archive has them; the build warns about a
        /// missing one. Lines and stanzas name their suites themselves.
        mirrors: Vec<Spanned<String>> = "list of strings", "`[]`";
        /// Time in the snapshot archive, for example `20261101T000000Z`.
        snapshot: String = "string", "the current archive";
        /// HTTP proxy for downloads.
        proxy: String = "string", "none";
        /// Keyring that must have signed the archive, instead of Debian's. The path is relative to
        /// the definition.
        keyring: String = "path", "Debian's";
        /// Whether to install recommended packages too.
        recommends: bool = "boolean", "`false`";
    }
}

section! {
    /// A single file, link or directory. These entries are applied in order after all sources. Each
    /// has exactly one of `content`, `copy`, `link`, `directory` and `absent`.
    "[[file]]" FileTable {
        /// Path in the image.
        path: String = "absolute path", "required";
        /// Create a file with this text.
        content: String = "string", "";
        /// Copy this file, without its extended attributes. The path is relative to the definition.
        copy: String = "path", "";
        /// Create a symbolic link to this target.
        link: String = "string", "";
        /// Create a directory.
        directory: bool = "`true`", "";
        /// Remove the path and everything below it from the sources' content.
        absent: bool = "`true`", "";
        /// Permission bits in octal.
        mode: String = "string, `\"0640\"`", "`\"0644\"`, `\"0755\"` for directories";
        /// Owner.
        uid: u32 = "integer", "`0`";
        /// Group.
        gid: u32 = "integer", "`0`";
    }
}

section! {
    /// Format of the root file system.
    "[root]" RootTable {
        /// `auto`, `none`, `lz4`, `lz4hc`, `zstd` or `zstd:LEVEL` with a level from 1 to 22. `auto`
        /// is zstd if the image's own kernel can read it (Linux 6.10 or later, and configured),
        /// else lz4hc.
        compression: String = "string", "`auto`";
        /// Largest compressed cluster: a power of two from 4K to 1M. Larger clusters compress
        /// better and are slower to read.
        cluster: String = "size", "`64K`, or `128K` with `optimize = \"size\"`";
        /// `updates`: two versions store equal content in the same blocks, so updates are small.
        /// `size`: the image is about 15 % smaller and stores equal files once, but an update
        /// transfers nearly all of it, and single small files are slower to read.
        optimize: String = "string", "`updates`";
    }
}

section! {
    /// Exceptions from scrubbing. Scrubbing removes files that must differ between servers or
    /// builds, and refuses secrets.
    "[scrub]" ScrubTable {
        /// Globs of paths that scrubbing neither removes nor refuses. `*` does not match a slash,
        /// `**` does. `["**"]` turns scrubbing off.
        keep: Vec<Spanned<String>> = "list of globs", "`[]`";
    }
}

section! {
    /// A volume: a writable partition that outlives images. Volumes are always mounted nosuid,
    /// nodev and noexec. Without this table there are two: `state` at /var (512M) and `logs` at
    /// /var/log (256M). Write `volumes = []` before the first table for none.
    "[[volume]]" VolumeTable {
        /// Partition label: 1 to 36 of a-z 0-9 . _ -.
        name: String = "string", "required";
        /// Mount point.
        mount: String = "absolute path", "required";
        /// Size in the disk image: whole MiB, at least 16M. The volume grows with the disk.
        size: String = "size", "required";
        /// Share of the free space if the disk is larger than the image at the first start; 0 keeps
        /// the size. Space that the disk gains later goes to the volume with the largest weight.
        weight: u32 = "integer", "`1`";
        /// Reaction if e2fsck cannot repair the volume: `fail` stops the boot; `recreate` saves
        /// evidence and makes a new volume. A volume that is newer than the image, or that cannot
        /// be read, is never recreated.
        on_damage: super::OnDamage = "`fail` or `recreate`", "`fail`";
        /// Whether an update replaces content that an earlier image put on the volume. `unchanged`
        /// replaces a unit if nothing in it was added, changed or deleted on the server; `never`
        /// replaces nothing. At /var, each entry directly below /var and /var/lib is a unit; any
        /// other volume is one unit.
        refresh: super::Refresh = "`unchanged` or `never`", "`unchanged`";
        /// When the file system is checked before it is mounted. `unclean` skips the check if the
        /// superblock says that it was unmounted cleanly, which starts a server sooner. `always`
        /// trusts no superblock: use it if others can write to the disk, because the kernel's ext4
        /// driver then gets only metadata that e2fsck has accepted.
        check: super::VolumeCheck = "`unclean` or `always`", "`unclean`";
        /// File system that the first boot makes with the image's own tools.
        filesystem: super::FileSystem = "`ext4`", "`ext4`";
    }
}

section! {
    /// Verification of the root.
    "[verify]" VerifyTable {
        /// `lazy` verifies each block when it is read. `full` also verifies all blocks before the
        /// image's init starts.
        boot: super::VerifyBoot = "`lazy` or `full`", "`lazy`";
        /// Kernel's reaction to a corrupted block: `reboot`, `panic`, or `error`, which only fails
        /// the read.
        on_corruption: super::OnCorruption = "`reboot`, `panic` or `error`", "`reboot`";
        /// Whether the root hash must be signed. `require` refuses a root that the key of the
        /// verity certificate did not sign; `prefer` boots it with a warning. The build
        /// refuses an expired certificate. Servers go on starting after its end: the clock decides
        /// nothing at boot.
        signature: super::Mode = "`require`, `prefer` or `off`", "`require` with a verity certificate, else `off`";
        /// MiB per second that `adamant-agent scrub` reads of the running root, to find corrupted
        /// blocks before they are needed. `on_corruption` applies to these blocks too.
        scrub_rate: u32 = "integer, 1 to 10000", "`20`";
        /// Hours from the start of one scrub to the start of the next.
        scrub_every: u32 = "integer, 1 to 8760", "`24`";
    }
}

section! {
    /// The systemd credentials from outside the image (SMBIOS, fw_cfg, kernel command line, EFI
    /// system partition) that the image's init receives. The agent logs the name of each, and drops
    /// and reports all others.
    "[credentials]" CredentialsTable {
        /// Names of credentials, at most 64. `*` matches any characters, for example
        /// `ssh.authorized_keys.root` or `network.*`. Anyone who can start the machine can set
        /// these credentials: `*` or a name like `tmpfiles.extra` lets them change its behaviour.
        accept: Vec<Spanned<String>> = "list of globs", "`[\"system.machine_id\"]`";
    }
}

section! {
    /// Reaction to a failed boot, and to later failures of the kernel.
    "[failure]" FailureTable {
        /// Reaction to a failed boot.
        action: super::FailureAction = "`reboot`, `poweroff` or `halt`", "`reboot`";
        /// Time between the message and the reaction, at most 1h.
        after: String = "duration", "`10s`";
        /// Reaction to a kernel bug (oops). `panic` restarts the machine after `after`, or not at
        /// all with `action = "halt"`. `log` ends only the process that met it, and the kernel's
        /// state is uncertain from then on.
        oops: super::FaultReaction = "`panic` or `log`", "`panic`";
        /// Reaction to a processor that is stuck in kernel code for about 20 seconds. A virtual
        /// machine on a busy host looks the same.
        lockup: super::FaultReaction = "`panic` or `log`", "`log`";
        /// Reaction to a process that waits for the kernel for two minutes, for example for a disk
        /// that does not respond.
        hung_task: super::FaultReaction = "`panic` or `log`", "`log`";
    }
}

section! {
    /// Restrictions of the running machine, which also apply to root. docs/threat-model.md lists
    /// what each level prevents.
    "[seal]" SealTable {
        /// `verity`: the root cannot be written. `lockdown`: the kernel cannot be changed either.
        /// `guard`: in addition, a BPF-LSM program of the agent allows only programs of the image,
        /// no mounts over the image, and no writes to the image's disk. Each level includes the
        /// ones before it.
        level: super::Level = "`verity`, `lockdown` or `guard`", "`verity`";
        /// Reaction if the kernel does not support the level: `require` fails the boot; `prefer`
        /// uses a lower level and reports it.
        enforce: super::Enforce = "`require` or `prefer`", "`prefer`";
        /// Names of kernel modules that the agent loads before it seals, at most 16. List modules
        /// that users or services without CAP_SYS_MODULE need, and with `module_loading = "boot"`
        /// those of hardware that is plugged in later.
        modules: Vec<Spanned<String>> = "list of strings", "`[]`";
        /// `image`, only with level `guard`: the kernel, systemd-udevd and systemd-modules-load can
        /// load modules of the verified root at any time, so new hardware gets its driver. No other
        /// process can, not even root's `modprobe` and `insmod`. `boot`: the agent loads the
        /// drivers of the present hardware, and no module can be loaded until the next start.
        /// Always `boot` at level `lockdown`, with the exceptions `containers` and `debug` (the
        /// guard cannot tell which program asks), and in an image without systemd-udevd.
        module_loading: super::ModuleLoading = "`image` or `boot`", "`image` at level `guard`, else `boot`";
        /// `refuse`, from level `guard` on: the image's shells and interpreters can only read files
        /// of the image, and no files on volumes or in memory, so they run no foreign scripts. This
        /// also blocks their own data files. It does not cover input from a pipe, a terminal or the
        /// command line. docs/threat-model.md has the details.
        scripts: super::Scripts = "`allow` or `refuse`", "`allow`";
        /// With `scripts = "refuse"`: paths of additional interpreters in the image. The builder
        /// knows shells, awk, perl, python, ruby, node, lua, php, tclsh, guile, java, make, gdb and
        /// others, and the dynamic loader.
        interpreters: Vec<Spanned<String>> = "list of absolute paths", "`[]`";
        /// Programs that the image must not contain; the build fails and lists their paths.
        /// `shell`, `interpreter` and `ssh` (servers) are found by the usual names of programs,
        /// `setuid` by the mode of each file.
        deny: Vec<super::Deny> = "list of `shell`, `interpreter`, `setuid`, `ssh`", "`[]`";
        /// Exceptions; see the next table.
        allow: Spanned<AllowTable> = "table", "";
    }
}

section! {
    /// Exceptions from the seal, each for one purpose. `adamant-agent status` counts them.
    "[seal.allow]" AllowTable {
        /// Allow memory that is first written and then executed, for programs with just-in-time
        /// compilers (JVM, .NET, Node.js, LuaJIT).
        jit: bool = "boolean", "`false`";
        /// Allow tracing processes and writing their memory (gdb, strace), except systemd and the
        /// agent.
        debug: bool = "boolean", "`false`";
        /// Allow BPF programs of other processes than systemd. They can observe everything, and
        /// some can change the results of system calls.
        bpf: bool = "boolean", "`false`";
        /// Allow programs on overlay file systems in other mount namespaces than the host's, for
        /// containers with foreign images.
        containers: bool = "boolean", "`false`";
        /// Allow registering interpreters with binfmt_misc. The interpreters must still belong to
        /// the image.
        binfmt: bool = "boolean", "`false`";
        /// Allow units that are made while the system runs: `systemd-run`, `systemd-mount` and
        /// their siblings. systemd does what such a unit says with its own rights. Scopes, as of a
        /// login, need no exception.
        transient_units: bool = "boolean", "`false`";
        /// Names of volumes from which programs may be executed. Anyone who can write to the volume
        /// can then run any program.
        execute: Vec<Spanned<String>> = "list of volume names", "`[]`";
        /// Directories below which anything may be mounted, for example a container engine's.
        mounts: Vec<Spanned<String>> = "list of absolute paths", "`[]`";
        /// Labels of partitions on the root's disk that may be written and mounted, for example
        /// `esp` for boot counting.
        disks: Vec<Spanned<String>> = "list of labels", "`[]`";
        /// With `scripts = "refuse"`: paths of interpreters that may still read files from
        /// everywhere, for example for a service with data on a volume.
        scripts: Vec<Spanned<String>> = "list of absolute paths", "`[]`";
        /// Numbers of requests that every program may send to disks and other devices by ioctl(2),
        /// for example `0xc0484e41` for `nvme smart-log`. A denial shows the number.
        ioctls: Vec<Spanned<u32>> = "list of numbers", "`[]`";
        /// At level `guard`: directories on volumes from which programs of the image may take
        /// instructions at each start or by the clock, for example `/var/spool/cron`. Anyone who
        /// can write there runs commands at each start. Without the exception, a directory of this
        /// kind has the image's content and is read-only.
        at_start: Vec<Spanned<String>> = "list of absolute paths", "`[]`";
    }
}

section! {
    /// Reaction of `adamant-agent watch` to violations on the running machine. Each violation is
    /// reported; `reboot` and `poweroff` then act at once. Violations that exist when the watch
    /// starts are only reported, because otherwise a machine could restart forever.
    "[on_violation]" OnViolationTable {
        /// A mount over the image or a volume, or a volume without its mount flags.
        mounts: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
        /// A kernel setting that differs from the seal's.
        sysctls: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
        /// A corrupted block, or a root that is not on the verified device.
        verity: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
        /// A new block device.
        devices: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
        /// An action that the guard refused.
        denials: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
    }
}

section! {
    /// Expected state of the running machine, besides the image, for `adamant-agent drift`.
    "[drift]" DriftTable {
        /// Ports on which programs may listen, at most 64, for example `["22/tcp", "123/udp"]`. Any
        /// other port is drift. Loopback addresses are ignored, and so are UDP ports from 32768 up
        /// that are in the kernel's range for clients (`net.ipv4.ip_local_port_range`).
        listen: Vec<Spanned<String>> = "list of ports", "none: ports are not checked";
    }
}

section! {
    /// Kernel command line and modules.
    "[kernel]" KernelTable {
        /// Arguments to add to the builder's own.
        cmdline: String = "string", "`\"\"`";
        /// Names of modules to add to the initramfs.
        modules: Vec<Spanned<String>> = "list of strings", "`[]`";
    }
}

section! {
    /// Programs that firmware starts. With systemd's stub the build makes a unified kernel image;
    /// with its boot loader the disk also boots on any UEFI firmware. Debian's package
    /// `systemd-boot-efi` has both. Without them the build writes only kernel, initramfs and
    /// command line.
    "[boot]" BootTable {
        /// systemd's stub, `linuxx64.efi.stub`. The path is relative to the definition.
        stub: String = "path", "the image's, in /usr/lib/systemd/boot/efi";
        /// systemd's boot loader, `systemd-bootx64.efi`. The path is relative to the definition.
        loader: String = "path", "the image's, in /usr/lib/systemd/boot/efi";
        /// Whether to add early microcode (from the image's intel-microcode and amd64-microcode) to
        /// the unified kernel image.
        microcode: bool = "boolean", "`false`";
        /// Kernel arguments for a second profile, which the boot loader offers as `debug`, for
        /// example `"systemd.log_level=debug systemd.debug_shell"`. Anyone at the console can
        /// choose it, also with Secure Boot. TPM secrets that are bound to PCR 11 stay sealed in
        /// this profile; secrets that are bound only to PCR 7 do not.
        debug: String = "string", "no second profile";
    }
}

section! {
    /// Keys that sign the image. The certificates are part of the image's bytes; the keys are not.
    "[sign]" SignTable {
        /// Directory from `adamant keys new`, relative to the definition. `--keys` overrides it.
        keys: String = "path", "nothing is signed";
        /// Key that firmware trusts. It signs boot loader and unified kernel image.
        secure_boot: Spanned<KeyTable> = "table", "`secure-boot.key` and `.crt` in `keys`";
        /// Key that the agent, systemd and the kernel trust. It signs the root hash.
        verity: Spanned<KeyTable> = "table", "`verity.key` and `.crt` in `keys`";
        /// Key that signs the predicted values of the TPM's PCR 11.
        pcr: Spanned<KeyTable> = "table", "`pcr.key` and `.crt` in `keys`";
    }
}

section! {
    /// A key and its certificate, in the same form for all three.
    "[sign] verity = { ... }" KeyTable {
        /// A PEM file, `pkcs11:` and the key of a token (RFC 7512), or `command:` and a shell
        /// command that reads a SHA-256 digest from stdin and writes the signature to stdout. Files
        /// are relative to the definition.
        key: String = "string", "required, except for `build --unsigned`";
        /// X.509 certificate of the key, PEM or DER. The path is relative to the definition.
        certificate: String = "path", "required";
    }
}

section! {
    /// Layout of the disk image.
    "[disk]" DiskTable {
        /// Size of the EFI system partition, whole MiB. A partition below 260M has no room for
        /// three unified kernel images, and some firmware does not accept it with 4096-byte
        /// sectors.
        esp: String = "size", "`512M`";
        /// Number of slots. The second slot is empty at first; an update writes the next image to
        /// it.
        slots: u32 = "`1` or `2`", "`2` with a boot loader, else `1`";
        /// Size of each slot's root partition, whole MiB. It cannot change after servers are
        /// installed.
        slot_size: String = "size", "with two slots: root and headroom, rounded up to 64M; with one: size of the root";
        /// Minimum free space of a slot, so that later images fit. The build refuses an image with
        /// less.
        headroom: String = "percentage", "`50%`";
        /// Whether to add a 1 MiB partition in which the agent records how the last boots ended,
        /// also if no volume could be mounted.
        black_box: bool = "boolean", "`true`";
        /// Sector size of the target disk, bytes.
        sector: u32 = "`512` or `4096`", "`512`";
    }
}

section! {
    /// Limits for the content of all sources, so that a hostile archive cannot fill the disk.
    "[limits]" LimitsTable {
        /// Total size of all files after decompression. Holes count only if they remain after
        /// scrubbing, because an image stores them as zeros.
        bytes: String = "size", "`64G`";
        /// Number of entries.
        entries: u64 = "integer", "`10000000`";
    }
}
