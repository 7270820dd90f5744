//! The policy: what the image asks of the agent. A JSON file inside the verified root, so it needs
//! no signature of its own.
//!
//! The builder writes it from the definition; the agent refuses a policy whose `version` it does
//! not know, or that has a key it does not know: nothing is ignored silently.

use serde::{Deserialize, Serialize};

/// The only version there is.
pub const VERSION: u32 = 1;
/// More volumes than this are refused.
pub const MAX_VOLUMES: usize = 32;
/// More names in a list of the seal's are refused.
pub const MAX_SEAL_NAMES: usize = 16;
/// More interpreters than this are refused: the guard has a place for each (INTERPRETERS in
/// agent/bpf/guard.bpf.c).
pub const MAX_INTERPRETERS: usize = 32;
/// More ports are refused.
pub const MAX_PORTS: usize = 64;
/// More places whose data comes from the image are refused.
pub const MAX_IMAGE_DATA: usize = 32;
/// More names of credentials than this are refused.
pub const MAX_ACCEPTED_NAMES: usize = 64;

/// `/usr/lib/adamant/policy.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Version of this format, [`VERSION`].
    pub version: u32,
    /// Which image this is.
    pub image: Image,
    /// How the root is verified.
    #[serde(default)]
    pub verify: Verify,
    /// What happens when the boot fails.
    #[serde(default)]
    pub failure: Failure,
    /// What the world outside may tell the image's init.
    #[serde(default)]
    pub credentials: Credentials,
    /// What the running machine refuses.
    #[serde(default)]
    pub seal: Seal,
    /// What `adamant-agent watch` does about what should not be.
    #[serde(default)]
    pub on_violation: OnViolation,
    /// What `adamant-agent drift` holds the machine against, beside the image itself.
    #[serde(default)]
    pub drift: Drift,
    /// The volumes, parents before children.
    #[serde(default, rename = "volume", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Directories and files below a volume's mount point that describe the image, as absolute
    /// paths: the image's own are shown there, read-only. The builder finds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_data: Vec<String>,
}

/// Which image this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
}

/// What the world outside may tell the image's init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Credentials {
    /// Names, in which `*` stands for any characters; what none of them names is dropped.
    pub accept: Vec<String>,
}

impl Default for Credentials {
    /// Which machine it is, and nothing about what it does.
    fn default() -> Self {
        Credentials {
            accept: vec!["system.machine_id".to_owned()],
        }
    }
}

/// What the running machine refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seal {
    /// How much.
    pub level: Level,
    /// What happens when the kernel can't give it.
    pub enforce: Enforce,
    /// Kernel modules by name, which the agent loads before it seals.
    pub modules: Vec<String>,
    /// How long modules can be loaded.
    pub module_loading: ModuleLoading,
    /// Programs of the image, by path, that read scripts from nowhere but the image; from level
    /// guard on. The builder finds them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interpreters: Vec<String>,
    /// Exceptions.
    pub allow: Allow,
}

/// How much a running machine refuses; each includes the ones before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The root can't be written, and nothing on volumes or in memory is executed, unless root
    /// changes mounts.
    #[default]
    Verity,
    /// The kernel can't be changed either.
    Lockdown,
    /// Nor what runs, whatever root tries: a BPF-LSM program.
    Guard,
}

impl Level {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Level::Verity => "verity",
            Level::Lockdown => "lockdown",
            Level::Guard => "guard",
        }
    }
}

/// How long kernel modules can be loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleLoading {
    /// As long as the machine runs, but only modules of the image, and only for the kernel,
    /// systemd-udevd and systemd-modules-load. Only the guard can tell them apart: at lower
    /// levels it is as [`ModuleLoading::Boot`].
    #[default]
    Image,
    /// Until the agent seals, from level lockdown on.
    Boot,
}

/// What happens when the kernel can't give a level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforce {
    /// The boot goes on with what it can give, and the report says what is missing.
    #[default]
    Prefer,
    /// The boot fails.
    Require,
}

/// Exceptions from the seal, by purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Memory that is written and then executed: just-in-time compilers.
    pub jit: bool,
    /// Processes may be traced.
    pub debug: bool,
    /// BPF programs of others than systemd.
    pub bpf: bool,
    /// Programs on overlay file systems in other mount namespaces than the host's.
    pub containers: bool,
    /// Interpreters can be registered with binfmt_misc.
    pub binfmt: bool,
    /// Volumes, by name, that programs may be executed from.
    pub execute: Vec<String>,
    /// Folders, absolute, below which anything may be mounted.
    pub mounts: Vec<String>,
    /// Partitions of the root's disk, by label, that may be written and mounted.
    pub disks: Vec<String>,
    /// Interpreters, by path, that read scripts from everywhere: the builder has left them out of
    /// [`Seal::interpreters`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<String>,
}

impl Allow {
    /// Those that are used, each as it is written.
    pub fn used(&self) -> Vec<String> {
        let flags = [
            ("jit", self.jit),
            ("debug", self.debug),
            ("bpf", self.bpf),
            ("containers", self.containers),
            ("binfmt", self.binfmt),
        ];
        let lists = [
            ("execute", &self.execute),
            ("mounts", &self.mounts),
            ("disks", &self.disks),
            ("scripts", &self.scripts),
        ];
        let flags = flags
            .iter()
            .filter(|flag| flag.1)
            .map(|flag| flag.0.to_owned());
        flags
            .chain(lists.iter().flat_map(|(key, list)| {
                list.iter()
                    .map(move |one| [key, " ", one.as_str()].concat())
            }))
            .collect()
    }
}

/// What `adamant-agent watch` does about what should not be, by its class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnViolation {
    /// A mount over the image or a volume, or one whose flags are others.
    pub mounts: Reaction,
    /// A setting of the kernel's that is not as the seal left it.
    pub sysctls: Reaction,
    /// A bad block, or a root that is not the verified device.
    pub verity: Reaction,
    /// A new block device.
    pub devices: Reaction,
    /// Something that the guard refused.
    pub denials: Reaction,
}

/// What the machine is held against, beside the image itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drift {
    /// The ports that may be open, as `22/tcp`; `None`: nobody looks.
    pub listen: Option<Vec<String>>,
}

/// What is done about a violation, beside telling of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reaction {
    /// Nothing.
    #[default]
    Log,
    /// The machine restarts.
    Reboot,
    /// It is switched off.
    Poweroff,
}

/// How the root is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// When blocks are checked.
    pub boot: VerifyBoot,
    /// What the kernel does about a bad block found after handover.
    pub on_corruption: OnCorruption,
    /// MiB a second that `adamant-agent scrub` reads, 1 to 10,000.
    pub scrub_rate: u32,
    /// Hours from the start of one reading to the start of the next, 1 to 8,760.
    pub scrub_every: u32,
}

impl Default for Verify {
    fn default() -> Self {
        Verify {
            boot: VerifyBoot::Lazy,
            on_corruption: OnCorruption::Reboot,
            scrub_rate: 20,
            scrub_every: 24,
        }
    }
}

/// When blocks are checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyBoot {
    /// Each block when it is read.
    #[default]
    Lazy,
    /// Every block before the image's init starts, and each again when it is read.
    Full,
}

/// What the kernel does about a bad block found after handover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCorruption {
    /// Restart at once.
    #[default]
    Reboot,
    /// Panic: with `panic=` a restart that leaves a trace in pstore.
    Panic,
    /// The reader gets an I/O error.
    Error,
}

impl OnCorruption {
    /// The value in the policy.
    pub fn name(self) -> &'static str {
        match self {
            OnCorruption::Reboot => "reboot",
            OnCorruption::Panic => "panic",
            OnCorruption::Error => "error",
        }
    }
}

/// What happens when the boot fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Failure {
    /// The outcome.
    pub action: FailureAction,
    /// Seconds between the message and the outcome, at most 3600.
    pub after_seconds: u32,
    /// What the kernel does about a mistake of its own.
    pub oops: Fault,
    /// What it does about a processor that does not come back from one piece of its work.
    pub lockup: Fault,
    /// What it does about a process that waits for it without end.
    pub hung_task: Fault,
}

/// What the kernel does about a fault of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It says so in its log.
    #[default]
    Log,
    /// It ends, and so the machine restarts.
    Panic,
}

impl Default for Failure {
    fn default() -> Self {
        Failure {
            action: FailureAction::Reboot,
            after_seconds: 10,
            oops: Fault::Panic,
            lockup: Fault::Log,
            hung_task: Fault::Log,
        }
    }
}

/// The outcome of a failed boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// Try again; where boots are counted, the loader falls back.
    #[default]
    Reboot,
    /// Switch off.
    Poweroff,
    /// Stop, and stay on to be looked at.
    Halt,
}

/// A volume: a partition of the root's disk that outlives images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Partition label.
    pub name: String,
    /// Absolute mount point, without `.` or `..`.
    pub mount: String,
    /// File system made on first boot; `ext4` is the only one.
    #[serde(default)]
    pub filesystem: FileSystem,
    /// Share of free space this volume gets when the disk is larger than the image; 0 keeps its
    /// size.
    #[serde(default = "one")]
    pub weight: u32,
    /// What happens when it can't be repaired.
    #[serde(default)]
    pub on_damage: OnDamage,
    /// What a later image does with what an earlier one has put there.
    #[serde(default)]
    pub refresh: Refresh,
}

fn one() -> u32 {
    1
}

/// A file system the agent can make, check and grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4, by the image's e2fsprogs.
    #[default]
    Ext4,
}

/// What a later image does with what an earlier one has put on a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refresh {
    /// Units that nobody has changed on the server are replaced.
    #[default]
    Unchanged,
    /// Nothing is replaced.
    Never,
}

/// What happens to a volume that can't be repaired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDamage {
    /// The boot fails.
    #[default]
    Fail,
    /// A new one is made, after evidence of the damaged one was kept.
    Recreate,
}

impl Policy {
    /// The file's bytes.
    pub fn to_json(&self) -> Result<Vec<u8>, String> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| e.to_string())?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a policy. `Err` says in one line what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Policy, String> {
        #[derive(Deserialize)]
        struct Version {
            version: Option<i64>,
        }
        if bytes.len() > crate::paths::POLICY_LIMIT {
            return Err(format!(
                "{} bytes, more than the {} a policy may have",
                bytes.len(),
                crate::paths::POLICY_LIMIT
            ));
        }
        let wrong = |e: serde_json::Error| e.to_string();
        // The version first: a newer policy is refused for being newer, not for its first new key.
        let found: Version = serde_json::from_slice(bytes).map_err(wrong)?;
        match found.version {
            Some(version) if version == i64::from(VERSION) => {}
            Some(version) => {
                return Err(format!(
                    "version {version}, this agent knows version {VERSION}"
                ));
            }
            None => return Err("no `version`".to_owned()),
        }
        let policy: Policy = serde_json::from_slice(bytes).map_err(wrong)?;
        policy.check()?;
        Ok(policy)
    }

    /// The volume that holds a path of [`Policy::image_data`]: of those above it, the one with the
    /// longest mount point.
    pub fn volume_of(&self, path: &str) -> Option<&Volume> {
        self.volumes
            .iter()
            .filter(|volume| is_below(path, &volume.mount))
            .max_by_key(|volume| volume.mount.len())
    }

    fn check_image_data(&self) -> Result<(), String> {
        if self.image_data.len() > MAX_IMAGE_DATA {
            return Err(format!(
                "image_data has {} paths, at most {MAX_IMAGE_DATA} are possible",
                self.image_data.len()
            ));
        }
        for path in &self.image_data {
            let parts_are_names = path.len() <= 1024
                && path.get(1..).is_some_and(|rest| {
                    rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
                });
            if !parts_are_names
                || path
                    .bytes()
                    .any(|b| b.is_ascii_control() || b.is_ascii_whitespace() || b == b'\\')
                || self.volume_of(path).is_none()
            {
                return Err(format!(
                    "image_data: {path:?} is no path below a volume's mount point"
                ));
            }
            if self
                .volumes
                .iter()
                .any(|volume| volume.mount == *path || is_below(&volume.mount, path))
            {
                return Err(format!(
                    "image_data: a volume is mounted at or below {path}"
                ));
            }
            if self.image_data.iter().any(|other| is_below(other, path)) {
                return Err(format!(
                    "image_data: {path} is above another path of the list"
                ));
            }
        }
        Ok(())
    }

    /// The rules that types can't say.
    pub fn check(&self) -> Result<(), String> {
        if self.volumes.len() > MAX_VOLUMES {
            return Err(format!(
                "{} volumes, at most {MAX_VOLUMES} are possible",
                self.volumes.len()
            ));
        }
        if self.failure.after_seconds > 3600 {
            return Err(format!(
                "failure.after_seconds is {}, at most 3600 is possible",
                self.failure.after_seconds
            ));
        }
        for (key, value, most) in [
            ("scrub_rate", self.verify.scrub_rate, 10_000),
            ("scrub_every", self.verify.scrub_every, 8760),
        ] {
            if value == 0 || value > most {
                return Err(format!("verify.{key} is {value}, 1 to {most} is possible"));
            }
        }
        let accept = &self.credentials.accept;
        if accept.len() > MAX_ACCEPTED_NAMES {
            return Err(format!(
                "credentials.accept has {} names, at most {MAX_ACCEPTED_NAMES} are possible",
                accept.len()
            ));
        }
        if let Some(bad) = accept
            .iter()
            .find(|glob| !crate::credentials::is_glob(glob))
        {
            return Err(format!(
                "credentials.accept: {bad:?} is not a credential's name (printable ASCII without / and :, with * for any characters)"
            ));
        }
        if let Some(ports) = &self.drift.listen {
            if ports.len() > MAX_PORTS {
                return Err(format!(
                    "drift.listen has {} ports, at most {MAX_PORTS} are possible",
                    ports.len()
                ));
            }
            let is_port = |text: &String| {
                let port = text
                    .strip_suffix("/tcp")
                    .or_else(|| text.strip_suffix("/udp"));
                port.is_some_and(|port| {
                    port.parse::<u16>()
                        .is_ok_and(|number| number > 0 && number.to_string() == port)
                })
            };
            if let Some(bad) = ports.iter().find(|port| !is_port(port)) {
                return Err(format!(
                    "drift.listen: {bad:?} is not a port (for example 22/tcp or 123/udp)"
                ));
            }
        }
        self.seal.check(&self.volumes)?;
        for (index, volume) in self.volumes.iter().enumerate() {
            volume.check()?;
            for earlier in &self.volumes[..index] {
                if earlier.name == volume.name {
                    return Err(format!("two volumes are named {:?}", volume.name));
                }
                if earlier.mount == volume.mount {
                    return Err(format!(
                        "volumes {:?} and {:?} both mount at {}",
                        earlier.name, volume.name, volume.mount
                    ));
                }
                if is_below(&earlier.mount, &volume.mount) {
                    return Err(format!(
                        "volume {:?} ({}) must come before {:?} ({})",
                        volume.name, volume.mount, earlier.name, earlier.mount
                    ));
                }
            }
        }
        self.check_image_data()
    }
}

/// Whether `path` lies strictly below `parent`; both absolute and without `.` or `..`.
pub fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.starts_with('/'))
}

impl Seal {
    /// Whether this policy leaves module loading open for the image's modules. With `containers`,
    /// processes are put into any cgroup, and with `debug`, systemd-udevd's children can be
    /// traced: the guard could not tell anymore who asks.
    pub fn loads_modules_on_request(&self) -> bool {
        self.level == Level::Guard
            && self.module_loading == ModuleLoading::Image
            && !self.allow.containers
            && !self.allow.debug
    }

    fn check(&self, volumes: &[Volume]) -> Result<(), String> {
        let Allow {
            execute,
            mounts,
            disks,
            ..
        } = &self.allow;
        for (key, list, most) in [
            ("modules", &self.modules, MAX_SEAL_NAMES),
            ("allow.execute", execute, MAX_SEAL_NAMES),
            ("allow.mounts", mounts, MAX_SEAL_NAMES),
            ("allow.disks", disks, MAX_SEAL_NAMES),
            ("interpreters", &self.interpreters, MAX_INTERPRETERS),
        ] {
            if list.len() > most {
                return Err(format!(
                    "seal.{key} has {} names, at most {most} are possible",
                    list.len()
                ));
            }
        }
        let is_module = |name: &String| {
            !name.is_empty()
                && name.len() <= 64
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        };
        if let Some(bad) = self.modules.iter().find(|name| !is_module(name)) {
            return Err(format!("seal.modules: {bad:?} is not a module's name"));
        }
        if let Some(bad) = execute
            .iter()
            .find(|name| !volumes.iter().any(|volume| volume.name == **name))
        {
            return Err(format!("seal.allow.execute: no volume is named {bad:?}"));
        }
        let is_path = |path: &String| {
            path.len() > 1
                && path.starts_with('/')
                && path[1..]
                    .split('/')
                    .all(|part| !matches!(part, "" | "." | ".."))
        };
        if let Some(bad) = mounts.iter().find(|path| !is_path(path)) {
            return Err(format!(
                "seal.allow.mounts: {bad:?} is not an absolute path without . and .."
            ));
        }
        if let Some(bad) = disks
            .iter()
            .find(|label| label.is_empty() || label.len() > 36)
        {
            return Err(format!(
                "seal.allow.disks: {bad:?} is not a partition's label"
            ));
        }
        Ok(())
    }
}

impl Volume {
    fn check(&self) -> Result<(), String> {
        let name_ok = !self.name.is_empty()
            && self.name.len() <= 36
            && self
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        // A label that has a meaning must not be taken for a volume.
        if self.name == crate::blackbox::LABEL {
            return Err(format!(
                "{:?} is the label of another partition: give the volume another name",
                self.name
            ));
        }
        if !name_ok || self.name.starts_with('_') {
            return Err(format!(
                "{:?} is not a volume name (1 to 36 of a-z 0-9 . _ -, not starting with _)",
                self.name
            ));
        }
        let mount_ok = self.mount.len() <= 1024
            && self.mount.starts_with('/')
            && self.mount.len() > 1
            && self.mount[1..]
                .split('/')
                .all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
            && !self
                .mount
                .bytes()
                .any(|b| b.is_ascii_control() || b.is_ascii_whitespace() || b == b'\\');
        if !mount_ok {
            return Err(format!(
                "volume {:?}: {:?} is not a mount point (an absolute path without . or .. or white space)",
                self.name, self.mount
            ));
        }
        for reserved in [
            "/proc", "/sys", "/dev", "/run", "/usr", "/etc", "/boot", "/efi",
        ] {
            if self.mount == reserved || is_below(&self.mount, reserved) {
                return Err(format!(
                    "volume {:?}: {} is not a place for a volume: {reserved} belongs to the image or the kernel",
                    self.name, self.mount
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version": 1, "image": {"id": "web", "version": "1"}, "volume": [{"name": "state", "mount": "/var"}]}"#;

    fn with_volume(name: &str, mount: &str) -> String {
        GOOD.replace(
            "}]}",
            &format!("}}, {{\"name\": {name:?}, \"mount\": {mount:?}}}]}}"),
        )
    }

    fn with_image_data(paths: &str) -> String {
        GOOD.replace("}]}", &format!("}}], \"image_data\": [\"{paths}\"]}}"))
    }

    #[test]
    fn data_of_the_image_belongs_to_the_volume_next_above_it() {
        let policy = with_volume("db", "/var/lib").replace(
            "}]}",
            "}], \"image_data\": [\"/var/lib/dpkg\", \"/var/cache/x\"]}",
        );
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        assert_eq!(policy.volume_of("/var/lib/dpkg").unwrap().name, "db");
        assert_eq!(policy.volume_of("/var/cache/x").unwrap().name, "state");
        assert_eq!(policy.volumes[0].refresh, Refresh::Unchanged);
    }

    #[test]
    fn reads_a_policy_with_defaults() {
        let policy = Policy::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(policy.failure.after_seconds, 10);
        assert_eq!(policy.volumes[0].weight, 1);
        assert_eq!(Policy::parse(&policy.to_json().unwrap()), Ok(policy));
    }

    #[test]
    fn only_a_guard_that_knows_who_asks_leaves_module_loading_open() {
        let open = |seal: &str| {
            let text = GOOD.replacen(
                "\"volume\"",
                &format!("\"seal\": {{{seal}}}, \"volume\""),
                1,
            );
            Policy::parse(text.as_bytes())
                .unwrap()
                .seal
                .loads_modules_on_request()
        };
        assert!(
            open(r#""level": "guard""#)
                && open(
                    r#""level": "guard", "module_loading": "image", "allow": {"jit": true, "bpf": true, "mounts": ["/mnt"]}"#
                )
        );
        for seal in [
            "",
            r#""level": "verity", "module_loading": "image""#,
            r#""level": "lockdown", "module_loading": "image""#,
            r#""level": "guard", "module_loading": "boot""#,
            r#""level": "guard", "allow": {"containers": true}"#,
            r#""level": "guard", "allow": {"debug": true}"#,
        ] {
            assert!(!open(seal), "{seal}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (text, why) in [
            (
                GOOD.replace(
                    "\"version\": 1, \"image\"",
                    "\"version\": 2, \"new\": 1, \"image\"",
                ),
                "version 2, this agent knows version 1",
            ),
            (
                GOOD.replace(
                    "\"version\": 1, \"image\"",
                    "\"version\": 1, \"new\": 1, \"image\"",
                ),
                "unknown field `new`",
            ),
            (
                GOOD.replace("\"version\": 1, \"image\"", "\"image\""),
                "no `version`",
            ),
            (GOOD.replace("/var", "/var/../etc"), "not a mount point"),
            (
                GOOD.replace("/var", "/usr/local"),
                "not a place for a volume",
            ),
            (GOOD.replace("\"state\"", "\"_empty\""), "not a volume name"),
            (with_volume("x", "/var"), "both mount"),
            (
                with_volume("x", "/var").replacen("/var", "/var/log", 1),
                "must come before",
            ),
            (
                with_image_data("/etc/x"),
                "no path below a volume's mount point",
            ),
            (
                with_image_data("/var/../etc"),
                "no path below a volume's mount point",
            ),
            (
                with_image_data("/var/a b"),
                "no path below a volume's mount point",
            ),
            (
                with_image_data("/var"),
                "no path below a volume's mount point",
            ),
            (
                with_image_data("/var/x\", \"/var/x/y"),
                "above another path",
            ),
            (
                with_image_data("/var/lib").replace(
                    "}], \"image",
                    "}, {\"name\": \"x\", \"mount\": \"/var/lib/x\"}], \"image",
                ),
                "mounted at or below",
            ),
            (format!("{GOOD}x"), "trailing"),
        ] {
            let error = Policy::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
