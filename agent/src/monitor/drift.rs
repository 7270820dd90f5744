//! `adamant-agent drift`: all differences between the running machine and its image and policy.
//!
//! Besides the findings of `findings`: units made at run time, programs on volumes that the image
//! does not have, and open ports. Other files on volumes are state; they are only measured. A walk
//! through a volume sees the files that exist while it walks.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adamant_contract::policy::{Level, Policy, Seal};
use serde::{Serialize, Serializer};

use super::finding::{Class, Finding};
use super::instructions::{Instructions, start_place};
use super::volume_trouble::VolumeTrouble;
use super::{
    VerifiedDevice, boot_report, denials, findings, json, policy, read, services, sockets,
};
use crate::boot::systemd::{MANAGER_OF_ROOT, MODULE_LOADERS, RULE, RULES, unit_name};
use crate::kernel::mounts::clone_mount;

/// Most files that are read on all volumes together.
const ENTRIES: u64 = 200_000;
/// Number of programs that are listed.
const NAMED: usize = 20;
/// Directories with units and udev rules that are made at run time.
const FOLDERS: [&str; 5] = [
    "/run/systemd/system",
    "/run/systemd/system.control",
    "/run/systemd/system.attached",
    "/run/systemd/transient",
    RULES,
];

/// The period over which a volume's growth is measured, in seconds.
const DAY: u64 = 86400;

/// The command's result.
#[derive(Serialize)]
struct DriftReport<'a> {
    /// The number that the asker chose.
    nonce: Option<&'a str>,
    image_id: &'a str,
    image_version: &'a str,
    /// Root hash of the running root, `None` if it is not on dm-verity.
    root_hash: Option<String>,
    drift: Vec<Finding>,
    /// Hooks of the guard and how often each refused an operation.
    #[serde(serialize_with = "as_map")]
    denials: Vec<(&'static str, u64)>,
    /// Exceptions in the policy.
    allowances: Vec<String>,
    volumes: Vec<VolumeUse<'a>>,
    /// Files on volumes that make programs run commands at start or at a login.
    instructions: Vec<String>,
    /// Whether there are more of them.
    instructions_cut: bool,
}

fn as_map<S: Serializer>(pairs: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().copied())
}

/// The files on a volume.
#[derive(Default, Serialize)]
struct VolumeUse<'a> {
    volume: &'a str,
    files: u64,
    bytes: u64,
    /// Bytes of the files that were created within the last day.
    #[serde(rename = "made_bytes")]
    created: u64,
    /// Bytes of the older files that were modified within the last day. The volume grew by a part
    /// of them.
    #[serde(rename = "changed_bytes")]
    modified: u64,
    /// Age of the oldest file in seconds.
    #[serde(rename = "oldest_seconds")]
    oldest: u64,
    /// Whether the walk stopped at [`ENTRIES`].
    cut: bool,
}

/// What the command prints, and whether there is no drift.
pub struct DriftOutput {
    /// Text for the standard output.
    pub text: String,
    /// True if nothing differs.
    pub none: bool,
}

/// Most digits of a nonce.
const NONCE_DIGITS: usize = 64;

/// Compares the machine with its image and policy. Returns the result as text, or as JSON, which
/// repeats the asker's `nonce`. `Err` is a line for the standard error.
pub fn report_drift(json: bool, nonce: Option<&str>) -> Result<DriftOutput, String> {
    let is_nonce = |text: &str| {
        (1..=NONCE_DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if !nonce.is_none_or(is_nonce) {
        return Err("adamant: drift: --nonce takes 1 to 64 hexadecimal digits\n".to_owned());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err("adamant: drift: only root may read the kernel's tables that this command compares: run it as root\n".to_owned());
    }
    let policy = policy()?;
    let mut found = findings::all_findings(&policy);
    check_root_hash(&mut found);
    check_units(&policy, &mut found);
    services::check_services(&services::ALL, &mut found);
    sockets::check_ports(&policy, &mut found);
    let mut instructions = Instructions::new(&policy);
    let volumes = check_volumes(&policy, &mut found, &mut instructions);
    let counts = denials();
    if counts.is_none() && policy.seal.level == Level::Guard {
        found.push(Finding::new(
            Class::Guard,
            "its counters",
            "not readable",
            "readable by this program when root runs it",
        ));
    }
    let none = found.is_empty();
    let report = DriftReport {
        nonce,
        image_id: &policy.image.id,
        image_version: &policy.image.version,
        root_hash: VerifiedDevice::find().ok().map(|root| root.hash),
        drift: found,
        denials: counts.unwrap_or_default(),
        allowances: policy.seal.allow.used(),
        volumes,
        instructions: instructions.found,
        instructions_cut: instructions.cut,
    };
    let text = if json {
        json::to_line(&report) + "\n"
    } else {
        report.to_text()
    };
    Ok(DriftOutput { text, none })
}

impl DriftReport<'_> {
    fn to_text(&self) -> String {
        let list = |all: Vec<String>| {
            if all.is_empty() {
                "none".to_owned()
            } else {
                all.join(", ")
            }
        };
        let mut lines: Vec<String> = self
            .drift
            .iter()
            .map(|finding| json::printable(&finding.line()))
            .collect();
        if lines.is_empty() {
            lines.push("no drift".to_owned());
        }
        let denials = self
            .denials
            .iter()
            .map(|(hook, count)| format!("{hook} {count}"));
        lines.push(format!("denials: {}", list(denials.collect())));
        lines.push(format!("allowances: {}", list(self.allowances.clone())));
        let mut instructions: Vec<String> = self
            .instructions
            .iter()
            .map(|path| json::printable(path))
            .collect();
        if self.instructions_cut {
            instructions.push("and more".to_owned());
        }
        lines.push(format!("instructions on volumes: {}", list(instructions)));
        for VolumeUse {
            volume,
            files,
            bytes,
            created,
            modified,
            oldest,
            cut,
        } in &self.volumes
        {
            let more = if *cut {
                ", and more files that were not read"
            } else {
                ""
            };
            lines.push(format!(
                "volume {volume}: {files} files, {} KiB, of the last day {} KiB made and {} KiB changed, the oldest of {} days{more}",
                bytes >> 10,
                created >> 10,
                modified >> 10,
                oldest / DAY
            ));
        }
        lines.join("\n") + "\n"
    }
}

/// Compares the root hash in the kernel's table, which is in force, with those on the kernel
/// command line and in the boot report.
fn check_root_hash(found: &mut Vec<Finding>) {
    let Ok(root) = VerifiedDevice::find() else {
        return;
    };
    let line = read("/proc/cmdline").unwrap_or_default();
    let on_cmdline = line
        .split_ascii_whitespace()
        .find_map(|argument| argument.strip_prefix("roothash="));
    let report = boot_report().map(|report| report.root_hash);
    for (object, hash) in [
        ("roothash=", on_cmdline),
        ("root_hash of the boot report", report.as_deref()),
    ] {
        let hash = hash.unwrap_or("missing");
        if hash != root.hash {
            found.push(Finding::new(Class::Cmdline, object, hash, &root.hash));
        }
    }
}

/// Adds a finding for each unit that was made since the boot by others than the agent.
fn check_units(policy: &Policy, found: &mut Vec<Finding>) {
    let mounts = policy
        .volumes
        .iter()
        .map(|volume| volume.mount.as_str())
        .chain(["/tmp", "/dev/shm", "/etc/machine-id", "/efi", "/boot"]);
    let mut known: Vec<String> = mounts
        .chain(policy.image_data.iter().map(String::as_str))
        .map(unit_name)
        .chain([MANAGER_OF_ROOT.to_owned()])
        .collect();
    if findings::loads_modules_on_request(policy, &|path| read(path).ok()) {
        known.extend(MODULE_LOADERS.map(str::to_owned));
    }
    for folder in FOLDERS {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if folder == FOLDERS[0] && known.contains(&name.replace(".automount", ".mount"))
                || folder == RULES && name == RULE
            {
                continue;
            }
            // A scope, for example of a login session, groups processes that exist already. It
            // starts none.
            if !name.ends_with(".scope") && !name.ends_with(".scope.d") {
                found.push(Finding::new(
                    Class::Units,
                    &[folder, "/", &name].concat(),
                    "present",
                    "absent",
                ));
            }
        }
    }
}

/// Measures all volumes, and adds a finding for each one that does not take writes, and for each
/// program that the image does not have. At level guard, so is a file in a place of instructions
/// without an exception.
fn check_volumes<'a>(
    policy: &'a Policy,
    found: &mut Vec<Finding>,
    instructions: &mut Instructions,
) -> Vec<VolumeUse<'a>> {
    let image = open_image_tree();
    let mut left = ENTRIES;
    let mut programs = Vec::new();
    let mut uses = Vec::new();
    for volume in &policy.volumes {
        if let Some(trouble) = VolumeTrouble::find(Path::new(&volume.mount)) {
            found.push(Finding::new(
                Class::Mounts,
                &volume.mount,
                &trouble.to_string(),
                "writable, without errors",
            ));
        }
        let may_run = policy.seal.allow.execute.contains(&volume.name);
        let mut all = Vec::new();
        let mut usage = walk(Path::new(&volume.mount), &mut left, &mut all, instructions);
        usage.volume = &volume.name;
        uses.push(usage);
        if !may_run {
            programs.extend(
                all.into_iter()
                    .filter(|path| !image.as_ref().is_some_and(|image| is_in_image(image, path))),
            );
        }
    }
    for path in &instructions.found {
        let is_known = || {
            image
                .as_ref()
                .is_some_and(|image| is_in_image(image, Path::new(path)))
        };
        if is_closed(&policy.seal, path) && !is_known() {
            let actual = "on a volume, where programs take instructions at start";
            found.push(Finding::new(Class::Instructions, path, actual, "absent"));
        }
    }
    for path in programs.iter().take(NAMED) {
        found.push(Finding::new(
            Class::Executables,
            &path.to_string_lossy(),
            "a program that the image does not have",
            "none",
        ));
    }
    if programs.len() > NAMED {
        found.push(Finding::new(
            Class::Executables,
            "further programs",
            &(programs.len() - NAMED).to_string(),
            "none",
        ));
    }
    uses
}

/// Whether the seal leaves no instructions on volumes in the place of this file.
fn is_closed(seal: &Seal, path: &str) -> bool {
    seal.level == Level::Guard
        && start_place(path)
            .is_some_and(|place| !seal.allow.at_start.iter().any(|allowed| allowed == place))
}

/// Measures the files of one file system below a directory, and collects its programs and
/// instructions.
fn walk<'a>(
    top: &Path,
    left: &mut u64,
    programs: &mut Vec<PathBuf>,
    instructions: &mut Instructions,
) -> VolumeUse<'a> {
    let mut usage = VolumeUse::default();
    let now = SystemTime::now();
    let device = fs::symlink_metadata(top).map(|found| found.dev()).ok();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else {
                continue;
            };
            if Some(about.dev()) != device {
                continue;
            }
            if *left == 0 {
                usage.cut = true;
                return usage;
            }
            *left -= 1;
            if about.is_dir() {
                folders.push(entry.path());
                continue;
            }
            usage.count(&about, now);
            let path = entry.path();
            instructions.note(&path.to_string_lossy());
            if is_program(&path, &about) {
                programs.push(path);
            }
        }
    }
    usage
}

impl VolumeUse<'_> {
    fn count(&mut self, about: &Metadata, now: SystemTime) {
        let bytes = about.blocks() * 512;
        self.files += 1;
        self.bytes += bytes;
        // After the clock was set back, times lie in the future: such files count as new.
        let age = |time: std::io::Result<SystemTime>| {
            time.ok()
                .map(|time| now.duration_since(time).map_or(0, |age| age.as_secs()))
        };
        let modified = age(about.modified()).unwrap_or(0);
        let created = age(about.created()).unwrap_or(modified);
        self.oldest = self.oldest.max(created);
        if created < DAY {
            self.created += bytes;
        } else if modified < DAY {
            self.modified += bytes;
        }
    }
}

/// Whether a file is executable and begins like an ELF program or a script.
fn is_program(path: &Path, about: &Metadata) -> bool {
    if !about.is_file() || about.permissions().mode() & 0o111 == 0 {
        return false;
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut start));
    read.is_ok() && (start == b"\x7fELF" || start.starts_with(b"#!"))
}

/// Whether the image has the same file at the same path: then it was copied to the volume by the
/// agent.
fn is_in_image(image: &OwnedFd, path: &Path) -> bool {
    let original = [
        "/proc/self/fd/",
        &image.as_raw_fd().to_string(),
        &path.to_string_lossy(),
    ]
    .concat();
    is_same(Path::new(&original), path).unwrap_or(false)
}

/// Whether two files have the same content.
fn is_same(first: &Path, second: &Path) -> std::io::Result<bool> {
    let (mut first, mut second) = (File::open(first)?, File::open(second)?);
    let (about, length) = (first.metadata()?, second.metadata()?.len());
    if !about.is_file() || about.len() != length {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut left = length;
    while left > 0 {
        let part = left.min(a.len() as u64) as usize;
        first.read_exact(&mut a[..part])?;
        second.read_exact(&mut b[..part])?;
        if a[..part] != b[..part] {
            return Ok(false);
        }
        left -= part as u64;
    }
    Ok(true)
}

/// Opens the image's tree without the file systems mounted in it. `None` if the kernel refuses:
/// then no file counts as the image's.
fn open_image_tree() -> Option<OwnedFd> {
    clone_mount(c"/").ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_executable_elf_files_and_scripts_count_as_programs() {
        let folder = std::env::temp_dir().join(format!("adamant-drift-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        for (name, content, mode) in [
            ("a/b/elf", "\u{7f}ELF....", 0o755),
            ("script", "#!/bin/sh\n", 0o700),
            ("text", "#!/bin/sh\n", 0o644),
            ("data", "data", 0o777),
            ("empty", "", 0o755),
        ] {
            fs::write(folder.join(name), content).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("/bin/sh", folder.join("link")).unwrap();
        let mut programs = Vec::new();
        let usage = walk(
            &folder,
            &mut 100,
            &mut programs,
            &mut Instructions::default(),
        );
        programs.sort();
        assert_eq!(programs, [folder.join("a/b/elf"), folder.join("script")]);
        assert_eq!((usage.files, usage.cut), (6, false));
        assert!(
            usage.bytes > 0
                && (usage.created, usage.modified, usage.oldest / 60) == (usage.bytes, 0, 0)
        );
        let mut later = VolumeUse::default();
        let about = fs::metadata(folder.join("data")).unwrap();
        later.count(&about, SystemTime::now() + Duration::from_secs(3 * DAY));
        assert_eq!(
            (later.created, later.modified, later.oldest / DAY),
            (0, 0, 3)
        );
        let file = File::open(folder.join("data")).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(2 * DAY + 100))
            .unwrap();
        later.count(
            &fs::metadata(folder.join("data")).unwrap(),
            SystemTime::now() + Duration::from_secs(3 * DAY),
        );
        assert_eq!(
            (later.created, later.modified, later.files),
            (0, about.blocks() * 512, 2)
        );
        let mut left = 3;
        assert!(
            walk(
                &folder,
                &mut left,
                &mut Vec::new(),
                &mut Instructions::default()
            )
            .cut && left == 0
        );
        assert!(is_same(&folder.join("script"), &folder.join("text")).unwrap());
        assert!(!is_same(&folder.join("script"), &folder.join("data")).unwrap());
        assert!(is_same(&folder.join("script"), &folder.join("nothing")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn instructions_are_drift_only_at_level_guard_and_without_an_exception() {
        let (linger, rc) = ("/var/lib/systemd/linger/a", "/home/a/.ssh/rc");
        let mut seal = Seal {
            level: Level::Guard,
            ..Seal::default()
        };
        assert!(is_closed(&seal, linger) && !is_closed(&seal, rc));
        seal.allow.at_start = vec!["/var/spool/cron".to_owned()];
        assert!(is_closed(&seal, linger) && !is_closed(&seal, "/var/spool/cron/root"));
        seal.level = Level::Lockdown;
        assert!(!is_closed(&seal, linger));
    }

    #[test]
    fn text_and_json_have_the_same_content() {
        let full = || DriftReport {
            nonce: None,
            image_id: "web",
            image_version: "1.2",
            root_hash: None,
            drift: vec![Finding::new(
                Class::Mounts,
                "/usr",
                "tmpfs over it",
                "not mounted over",
            )],
            denials: vec![("file_open", 2)],
            allowances: vec!["jit".to_owned()],
            volumes: vec![VolumeUse {
                volume: "state",
                files: 3,
                bytes: 4096,
                created: 1024,
                modified: 2048,
                oldest: 2 * DAY + 5,
                cut: false,
            }],
            instructions: vec!["/home/a/.ssh/rc\n".to_owned()],
            instructions_cut: true,
        };
        let none = DriftReport {
            drift: Vec::new(),
            denials: Vec::new(),
            allowances: Vec::new(),
            volumes: Vec::new(),
            instructions: Vec::new(),
            instructions_cut: false,
            ..full()
        };
        assert_eq!(
            full().to_text(),
            "mounts: /usr: is tmpfs over it, should be not mounted over\ndenials: file_open 2\nallowances: jit\n\
             instructions on volumes: /home/a/.ssh/rc\\u000a, and more\nvolume state: 3 files, 4 KiB, \
             of the last day 1 KiB made and 2 KiB changed, the oldest of 2 days\n"
        );
        assert_eq!(
            none.to_text(),
            "no drift\ndenials: none\nallowances: none\ninstructions on volumes: none\n"
        );
        assert_eq!(
            json::to_line(&full()),
            r#"{"nonce":null,"image_id":"web","image_version":"1.2","root_hash":null,"drift":[{"class":"mounts","what":"/usr","is":"tmpfs over it","should":"not mounted over"}],"denials":{"file_open":2},"allowances":["jit"],"volumes":[{"volume":"state","files":3,"bytes":4096,"made_bytes":1024,"changed_bytes":2048,"oldest_seconds":172805,"cut":false}],"instructions":["/home/a/.ssh/rc\n"],"instructions_cut":true}"#
        );
    }
}
