//! Every key of a definition, with its type, default and meaning: written once, here. Serde reads
//! definitions with these types, and `docs/definition.md` is generated from them, so neither can go
//! stale.

use serde::Deserialize;
use toml::Spanned;

/// A table of the definition, for the reference.
pub struct Section {
    /// How it is written: `[root]`, `[[volume]]`.
    pub title: &'static str,
    /// What it is for.
    pub doc: &'static [&'static str],
    /// Its keys, in the order in which a reader wants them.
    pub keys: &'static [Key],
}

/// One key, for the reference.
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What may stand there.
    pub shape: &'static str,
    /// What holds when it is left out.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static [&'static str],
}

/// Defines a table once: the type that serde fills, with a span for each key, and its part of the
/// reference.
macro_rules! section {
    ($(#[doc = $section_doc:literal])* $title:literal $name:ident { $( $(#[doc = $doc:literal])* $key:ident : $type:ty = $shape:literal, $default:literal; )* }) => {
        $(#[doc = $section_doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default, expecting = "a table")]
        pub struct $name { $( $(#[doc = $doc])* pub $key: Option<Spanned<$type>>, )* }

        impl $name {
            /// Its part of the reference.
            pub const SECTION: Section = Section {
                title: $title,
                doc: &[$($section_doc),*],
                keys: &[$( Key { name: stringify!($key), shape: $shape, default: $default, doc: &[$($doc),*] } ),*],
            };
        }
    };
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct File {
    /// `[image]`
    pub image: Option<Spanned<Image>>,
    /// `[[source]]`
    pub source: Vec<Spanned<Source>>,
    /// `[[file]]`
    pub file: Vec<Spanned<FileEntry>>,
    /// `[root]`
    pub root: Option<Spanned<Root>>,
    /// `[scrub]`
    pub scrub: Option<Spanned<Scrub>>,
    /// `volumes = []`
    pub volumes: Option<Spanned<Vec<toml::Value>>>,
    /// `[[volume]]`
    pub volume: Option<Spanned<Vec<Spanned<Volume>>>>,
    /// `[verify]`
    pub verify: Option<Spanned<Verify>>,
    /// `[credentials]`
    pub credentials: Option<Spanned<Credentials>>,
    /// `[failure]`
    pub failure: Option<Spanned<Failure>>,
    /// `[seal]`
    pub seal: Option<Spanned<Seal>>,
    /// `[on_violation]`
    pub on_violation: Option<Spanned<OnViolation>>,
    /// `[drift]`
    pub drift: Option<Spanned<Drift>>,
    /// `[kernel]`
    pub kernel: Option<Spanned<Kernel>>,
    /// `[boot]`
    pub boot: Option<Spanned<Boot>>,
    /// `[sign]`
    pub sign: Option<Spanned<Sign>>,
    /// `[disk]`
    pub disk: Option<Spanned<Disk>>,
    /// `[limits]`
    pub limits: Option<Spanned<Limits>>,
}

/// Every table, in the order of the reference.
pub const SECTIONS: &[Section] = &[
    Image::SECTION,
    Source::SECTION,
    Debian::SECTION,
    FileEntry::SECTION,
    Root::SECTION,
    Scrub::SECTION,
    Volume::SECTION,
    Verify::SECTION,
    Credentials::SECTION,
    Failure::SECTION,
    Seal::SECTION,
    Allow::SECTION,
    OnViolation::SECTION,
    Drift::SECTION,
    Kernel::SECTION,
    Boot::SECTION,
    Sign::SECTION,
    SignBy::SECTION,
    Disk::SECTION,
    Limits::SECTION,
];

section! {
    /// Which image this is. `ID_VERSION` names the artifacts and the partitions; with `_verity` it must fit into a partition label, so both
    /// together have at most 28 characters.
    "[image]" Image {
        /// IMAGE_ID, the same for every version: a-z 0-9 . _ -, starting with a letter or digit.
        id: String = "string", "required";
        /// IMAGE_VERSION, in the order of the UAPI.10 version format: A-Z a-z 0-9 . ~ ^ -, starting with a letter or digit.
        version: String = "string", "required";
        /// Modification times newer than this are set to it, so that the time of a build is not part of the image. Seconds since 1970 or an
        /// RFC 3339 date.
        epoch: toml::Value = "integer or date", "with a `debian` source the archive's own date, else times stay as they are";
    }
}

section! {
    /// Where the image's files come from. Sources are applied in the order in which they are written: a later entry replaces an earlier one
    /// at the same path. Symbolic links of earlier sources are followed inside the image, so a source with the root comes first. A link or file in
    /// place of a directory that is not empty is an error, because it would hide what is in the directory. So are layers of a container image or
    /// an overlay (whiteouts): merge them first. Exactly one of `debian`, `tar` and `dir` in each.
    "[[source]]" Source {
        /// Debian packages, put together by mmdebstrap; the table is below.
        debian: Spanned<Debian> = "table", "";
        /// A tar archive: plain, gzip, zstd or xz, told by its content. Entries arrive as they are, with access control lists and extended attributes;
        /// attributes that describe a file system (`btrfs.*`, `system.nfs4_acl` and the like) are left out. Decompression uses at most 256 MiB for
        /// a zstd window or an xz dictionary. Relative to the definition.
        tar: String = "path", "";
        /// A directory. Unless `owner` says otherwise, every entry belongs to root:root; write permission for group and others is taken away
        /// (0664 becomes 0644, 2775 becomes 2755), but for directories with the sticky bit, such as 1777; there are no access control lists, and of
        /// extended attributes only `security.capability`. A directory that an earlier source made keeps its owner and mode: this one adds to
        /// it. Relative to the definition.
        dir: String = "path", "";
        /// The directory of the image that the source is put below.
        at: String = "absolute path", "`/`";
        /// With `dir`: `root`, or `keep` for owners, groups, modes, times and access control lists as they are in the directory, also of directories
        /// that an earlier source made, and for the extended attributes `user.*`, `trusted.*` and `security.capability`. Others belong to the building
        /// machine (SELinux and its like, btrfs, NFS) and are left out.
        owner: String = "`root` or `keep`", "`root`";
        /// With `dir`: whether other file systems mounted below it are entered.
        cross_mounts: bool = "boolean", "`false`";
    }
}

section! {
    /// What a `debian` source is put together from.
    "[[source]] debian = { ... }" Debian {
        /// For example `trixie`.
        suite: String = "string", "required";
        /// Packages beside those of the variant.
        packages: Vec<Spanned<String>> = "list of strings", "`[]`";
        /// mmdebstrap's variant: `extract`, `custom`, `essential`, `apt`, `minbase`, `buildd`, `important` or `standard`.
        variant: String = "string", "`important`";
        /// Debian's name of the architecture. Only `amd64` is supported yet.
        architecture: String = "string", "`amd64`";
        /// Components of the archive.
        components: Vec<Spanned<String>> = "list of strings", "`[\"main\"]`";
        /// Archives instead of Debian's own. Each value is an address, a `deb` line with its options, or a deb822 stanza in a multi-line string.
        /// An address stands for the suite and its updates and security suites, as far as the archive has them; the build warns about a missing
        /// one. Lines and stanzas name their suites themselves.
        mirrors: Vec<Spanned<String>> = "list of strings", "`[]`";
        /// A moment of the snapshot archive instead of now, for example `20261101T000000Z`.
        snapshot: String = "string", "the archive as it is";
        /// HTTP proxy for the downloads.
        proxy: String = "string", "none";
        /// A keyring that the archive must be signed by, instead of Debian's. Relative to the definition.
        keyring: String = "path", "Debian's";
        /// Whether recommended packages are installed too.
        recommends: bool = "boolean", "`false`";
    }
}

section! {
    /// A single entry, without a source tree. These come after all sources, in the order in which they are written. Exactly one of `content`,
    /// `copy`, `link`, `directory` and `absent` in each.
    "[[file]]" FileEntry {
        /// Where it stands in the image.
        path: String = "absolute path", "required";
        /// A file with this text.
        content: String = "string", "";
        /// A copy of this file, without its extended attributes. Relative to the definition.
        copy: String = "path", "";
        /// A symbolic link to this target.
        link: String = "string", "";
        /// A directory.
        directory: bool = "`true`", "";
        /// Nothing: what the sources put there is removed, with all below it.
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
    /// How the root file system is written.
    "[root]" Root {
        /// `auto`, `none`, `lz4`, `lz4hc`, `zstd` or `zstd:LEVEL` with a level from 1 to 22. `auto` is zstd where the image's own kernel can
        /// read it (6.10 and configured), else lz4hc.
        compression: String = "string", "`auto`";
        /// Largest compressed cluster: a power of two from 4K to 1M. Larger ones compress better and read slower.
        cluster: String = "size", "`64K`, or `128K` with `optimize = \"size\"`";
        /// `updates`: content that two versions share is in the same blocks, so updates are small. `size`: the image is about 15 % smaller and holds
        /// equal files once, but an update transfers nearly all of it, and single small files are read more slowly.
        optimize: String = "string", "`updates`";
    }
}

section! {
    /// What is removed because it must differ between servers or between builds, and what is refused because it is a secret.
    "[scrub]" Scrub {
        /// Paths that scrubbing leaves alone and does not refuse. `*` stays within a directory, `**` does not. `["**"]` turns scrubbing off.
        keep: Vec<Spanned<String>> = "list of globs", "`[]`";
    }
}

section! {
    /// A volume: a partition of the root's disk that outlives images, always mounted nosuid, nodev and noexec. Without any, there are `state` at
    /// /var (512M) and `logs` at /var/log (256M); `volumes = []`, above all tables, asks for none.
    "[[volume]]" Volume {
        /// The partition's label: 1 to 36 of a-z 0-9 . _ -.
        name: String = "string", "required";
        /// Where it is mounted.
        mount: String = "absolute path", "required";
        /// Size on the disk image, whole MiB from 16M on. It grows with the disk.
        size: String = "size", "required";
        /// Share of the space that it gets when the disk is larger than the image at its first start; 0 keeps its size. What a disk gains later all goes to the
        /// volume with the greatest weight.
        weight: u32 = "integer", "`1`";
        /// What happens when e2fsck can't repair it: `fail` stops the boot, `recreate` makes a new one after evidence of the old one was kept. A volume that is newer than the image, or can't be read, is never made anew.
        on_damage: super::OnDamage = "`fail` or `recreate`", "`fail`";
        /// What a later image does with what an earlier one has put there: `unchanged` replaces units in which nobody has added, changed or deleted anything
        /// on the server, `never` replaces nothing. At /var each entry directly below /var and /var/lib is a unit; any other volume is one unit as a whole.
        refresh: super::Refresh = "`unchanged` or `never`", "`unchanged`";
        /// The file system made on first boot, by the image's own tools.
        filesystem: super::FileSystem = "`ext4`", "`ext4`";
    }
}

section! {
    /// How the root is verified.
    "[verify]" Verify {
        /// `lazy`: each block when it is read. `full`: every block before the image's init starts, and each again when it is read.
        boot: super::VerifyBoot = "`lazy` or `full`", "`lazy`";
        /// What the kernel does about a bad block that it finds later: `reboot`, `panic`, or `error` for the reader alone.
        on_corruption: super::OnCorruption = "`reboot`, `panic` or `error`", "`reboot`";
        /// Whether the root hash must be signed: `require` refuses what the verity certificate's key did not sign, `prefer` starts it with a warning. After the
        /// end of the certificate's validity it is not signed any more: replace images before.
        signature: super::Mode = "`require`, `prefer` or `off`", "`require` with a verity certificate, else `off`";
        /// MiB a second that `adamant-agent scrub` reads of the running root, so that a bad block is found before it is needed. `on_corruption` holds for what
        /// it finds, too.
        scrub_rate: u32 = "integer, 1 to 10000", "`20`";
        /// Hours from the start of one such reading to the start of the next.
        scrub_every: u32 = "integer, 1 to 8760", "`24`";
    }
}

section! {
    /// Configuration without change: which systemd credentials from outside the image (SMBIOS, fw_cfg, the kernel command line, the EFI system
    /// partition) reach its init. Each is logged by name; what is not named here is dropped, and said.
    "[credentials]" Credentials {
        /// Names, in which `*` stands for any characters, for example `ssh.authorized_keys.root` or `network.*`; at most 64. Who can start the machine
        /// can say what is named here: `*`, or a name like `tmpfiles.extra`, lets them change what it does.
        accept: Vec<Spanned<String>> = "list of globs", "`[\"system.machine_id\"]`";
    }
}

section! {
    /// What happens when the boot fails, and when the kernel does later.
    "[failure]" Failure {
        /// `reboot`, `poweroff` or `halt`.
        action: super::FailureAction = "`reboot`, `poweroff` or `halt`", "`reboot`";
        /// Time between the message and the outcome, at most 1h.
        after: String = "duration", "`10s`";
        /// What the kernel does about a mistake of its own, after which nothing is certain any more: `panic`, which is a restart after `after`, or
        /// with `action = "halt"` none; `log` ends the process that met it, and goes on.
        oops: super::FaultReaction = "`panic` or `log`", "`panic`";
        /// The same for a processor that has done nothing but one piece of the kernel's work for some 20 seconds. A virtual machine whose host is busy looks like that.
        lockup: super::FaultReaction = "`panic` or `log`", "`log`";
        /// The same for a process that has waited for the kernel for two minutes, such as for a disk that does not answer.
        hung_task: super::FaultReaction = "`panic` or `log`", "`log`";
    }
}

section! {
    /// What the running machine refuses, also to root. docs/threat-model.md says what each level keeps out.
    "[seal]" Seal {
        /// `verity`: the root can't be written. `lockdown`: nor the kernel changed. `guard`: and nothing runs that is not the image's, no mount hides it, and no
        /// disk is written around it, by a BPF-LSM program that the agent loads. Each includes the ones before it.
        level: super::Level = "`verity`, `lockdown` or `guard`", "`verity`";
        /// What happens when the kernel can't give the level: `require` fails the boot, `prefer` goes on with a lower one, and says so in the report.
        enforce: super::Enforce = "`require` or `prefer`", "`prefer`";
        /// Kernel modules, by name, that the agent loads before it seals; at most 16. Name those that users or services without CAP_SYS_MODULE need, and with
        /// `module_loading = "boot"` those of hardware that is plugged in later.
        modules: Vec<Spanned<String>> = "list of strings", "`[]`";
        /// `image`, for level `guard` alone: as long as the machine runs, the kernel, systemd-udevd and systemd-modules-load can load modules of the verified root,
        /// so that new hardware gets its driver. Nobody else can, including root's `modprobe` and `insmod`. `boot`: the agent loads the drivers of the hardware
        /// that is there, and then no module can be loaded until the next start. It is always `boot` at level `lockdown`, with the exceptions `containers` and
        /// `debug` (the guard could not tell who asks), and in an image without systemd-udevd.
        module_loading: super::ModuleLoading = "`image` or `boot`", "`image` at level `guard`, else `boot`";
        /// `refuse`: the image's shells and interpreters read no file that is not the image's, on volumes or in memory, so that none is a script to them; from level
        /// `guard` on. What they are told by a pipe, a terminal or their own command line can't be told apart, and their own data is refused to them too:
        /// docs/threat-model.md says how far it reaches.
        scripts: super::Scripts = "`allow` or `refuse`", "`allow`";
        /// With `scripts = "refuse"`: programs of the image, by path, that are interpreters beside those that the builder knows by their names (shells, awk, perl, python,
        /// ruby, node, lua, php, tclsh, guile, java, make, gdb and others, and the dynamic loader).
        interpreters: Vec<Spanned<String>> = "list of absolute paths", "`[]`";
        /// What the image must not hold; what is found is an error of the build, with its paths. `shell` and `interpreter` go by the usual programs' names,
        /// `setuid` by any file's mode, `ssh` is a server for it.
        deny: Vec<super::Deny> = "list of `shell`, `interpreter`, `setuid`, `ssh`", "`[]`";
        /// Exceptions, in a table of their own below.
        allow: Spanned<Allow> = "table", "";
    }
}

section! {
    /// Exceptions from the seal, each for one purpose. `adamant-agent status` counts them.
    "[seal.allow]" Allow {
        /// Memory that is written and then executed, for programs with just-in-time compilers (JVM, .NET, Node.js, LuaJIT).
        jit: bool = "boolean", "`false`";
        /// Processes may be traced, and their memory written, but for systemd and the agent: gdb, strace.
        debug: bool = "boolean", "`false`";
        /// BPF programs of others than systemd: they see everything, and some can change what programs are told.
        bpf: bool = "boolean", "`false`";
        /// Programs on overlay file systems, in other mount namespaces than the host's: containers whose images come from elsewhere.
        containers: bool = "boolean", "`false`";
        /// Interpreters can be registered with binfmt_misc; they must still be the image's.
        binfmt: bool = "boolean", "`false`";
        /// Volumes, by name, that programs may be executed from: whoever can write there decides what runs.
        execute: Vec<Spanned<String>> = "list of volume names", "`[]`";
        /// Folders below which anything may be mounted, for example a container engine's.
        mounts: Vec<Spanned<String>> = "list of absolute paths", "`[]`";
        /// Partitions of the root's disk, by label, that may be written and mounted, for example `esp` where boots are counted.
        disks: Vec<Spanned<String>> = "list of labels", "`[]`";
        /// With `scripts = "refuse"`: interpreters, by path, that read files from everywhere all the same, for example that of a service with its state on a volume.
        scripts: Vec<Spanned<String>> = "list of absolute paths", "`[]`";
    }
}

section! {
    /// What `adamant-agent watch` does on the running machine about what should not be, beside telling of it: `log` nothing, `reboot` and `poweroff` at
    /// once. What is found when the watch starts is only told: a machine that starts like that would never stop restarting.
    "[on_violation]" OnViolation {
        /// A mount over the image or a volume, or one of them without its flags.
        mounts: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
        /// A setting of the kernel's that is not as the seal left it.
        sysctls: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
        /// A bad block that was found, or a root that is not the verified device.
        verity: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
        /// A new block device.
        devices: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
        /// Something that the guard refused.
        denials: super::Reaction = "`log`, `reboot` or `poweroff`", "`log`";
    }
}

section! {
    /// What `adamant-agent drift` holds the running machine against, beside the image itself.
    "[drift]" Drift {
        /// The ports on which others may be waited for, for example `["22/tcp", "123/udp"]`; any other is a difference. Loopback addresses are not looked
        /// at, nor are UDP ports from the range that the kernel hands out (`net.ipv4.ip_local_port_range`): whoever only asks others has one of these. At
        /// most 64.
        listen: Vec<Spanned<String>> = "list of ports", "none: nobody looks";
    }
}

section! {
    /// The kernel's command line and modules.
    "[kernel]" Kernel {
        /// Words added to those that the builder writes.
        cmdline: String = "string", "`\"\"`";
        /// Modules in the initramfs beside the builder's own list, by name.
        modules: Vec<Spanned<String>> = "list of strings", "`[]`";
    }
}

section! {
    /// What firmware starts. With systemd's stub there is a unified kernel image, and with its boot loader a disk that any UEFI firmware
    /// starts; Debian has both in the package `systemd-boot-efi`. Without them, there are kernel, initramfs and command line to be started
    /// by other means.
    "[boot]" Boot {
        /// systemd's stub, `linuxx64.efi.stub`. Relative to the definition.
        stub: String = "path", "the image's own, in /usr/lib/systemd/boot/efi";
        /// systemd's boot loader, `systemd-bootx64.efi`. Relative to the definition.
        loader: String = "path", "the image's own, in /usr/lib/systemd/boot/efi";
        /// Whether early microcode (the image's intel-microcode and amd64-microcode) is in the unified kernel image.
        microcode: bool = "boolean", "`false`";
        /// Words added to the command line of a second profile, which the boot loader's menu then offers as `debug`, for example
        /// `"systemd.log_level=debug systemd.debug_shell"`. Whoever is at the console can choose it, also with Secure Boot. TPM secrets
        /// that are bound to PCR 11 stay closed in it; those bound to PCR 7 alone open there too.
        debug: String = "string", "there is no second profile";
    }
}

section! {
    /// What the image is signed with. Certificates decide about the image's bytes, keys only about who can make the signatures.
    "[sign]" Sign {
        /// A folder made by `adamant keys new`. Relative to the definition; `--keys` says another one.
        keys: String = "path", "nothing is signed";
        /// The key that firmware trusts: it signs boot loader and unified kernel image.
        secure_boot: Spanned<SignBy> = "table", "`secure-boot.key` and `.crt` in `keys`";
        /// The key that the agent, systemd and the kernel trust: it signs the root hash.
        verity: Spanned<SignBy> = "table", "`verity.key` and `.crt` in `keys`";
        /// The key that signs the values a TPM's PCR 11 will have.
        pcr: Spanned<SignBy> = "table", "`pcr.key` and `.crt` in `keys`";
    }
}

section! {
    /// A key and its certificate, for each of the three.
    "[sign] verity = { ... }" SignBy {
        /// A PEM file, `pkcs11:` and a token's key (RFC 7512), or `command:` and a shell command that gets a SHA-256 digest on its standard
        /// input and writes the signature to its standard output. Files are relative to the definition.
        key: String = "string", "required, but for `build --unsigned`";
        /// Its X.509 certificate, PEM or DER. Relative to the definition.
        certificate: String = "path", "required";
    }
}

section! {
    /// The disk image.
    "[disk]" Disk {
        /// Size of the EFI system partition, whole MiB. Below 260M there is no room for three unified kernel images, and some firmware
        /// with sectors of 4096 bytes does not take it.
        esp: String = "size", "`512M`";
        /// 1, or 2 for a second slot, empty at first, that the next image is put into.
        slots: u32 = "`1` or `2`", "`2` with a boot loader, else `1`";
        /// Size of the root partition of each slot, whole MiB. It can't be changed once servers have it.
        slot_size: String = "size", "with two slots the root and its headroom, up to whole 64M; with one the root's own size";
        /// Least part of the slot that must be free, so that later images fit; with less the image is refused.
        headroom: String = "percentage", "`50%`";
        /// A partition of 1 MiB in which the agent keeps how the last boots ended, also those that failed before a volume could be mounted.
        black_box: bool = "boolean", "`true`";
        /// Bytes of a sector of the disk that it will be on.
        sector: u32 = "`512` or `4096`", "`512`";
    }
}

section! {
    /// Bounds on what the sources may hold, so that a hostile archive can't fill the disk.
    "[limits]" Limits {
        /// All files together, after decompression. Holes do not count until the image is written: a long hole in a file that scrubbing empties does no
        /// harm, but an image stores holes as zeroes.
        bytes: String = "size", "`64G`";
        /// Number of entries.
        entries: u64 = "integer", "`10000000`";
    }
}
