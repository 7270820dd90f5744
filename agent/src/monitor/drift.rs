//! `adamant-agent drift`: everything in which the running machine differs from its image and
//! policy.
//!
//! Most of it is `findings`. Beside that: units that systemd was given at run time, and programs on
//! volumes that the image did not bring. What volumes hold is state, and only measured. A walk
//! through a volume sees what is there while it walks.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adamant_contract::paths::BOOT_REPORT_PATH;
use adamant_contract::policy::{Image, Level, Policy};

use super::findings::{self, Finding};
use super::guard::Counters;
use super::{Root, members, policy, read, sockets, value};
use crate::boot::systemd::{MODULE_LOADERS, RULE, RULES, unit_name};
use crate::kernel::guard_abi::HOOKS;
use crate::kernel::mounts::clone_mount;

/// Entries of all volumes together that are looked at.
const ENTRIES: u64 = 200_000;
/// Programs that are named.
const NAMED: usize = 20;
/// Where systemd takes units from that were not there when the image was built, and udev its rules.
const FOLDERS: [&str; 5] = [
    "/run/systemd/system",
    "/run/systemd/system.control",
    "/run/systemd/system.attached",
    "/run/systemd/transient",
    RULES,
];

/// By how long ago a volume's growth is told, seconds.
const DAY: u64 = 86400;

/// What a volume holds.
#[derive(Default)]
struct Held<'a> {
    volume: &'a str,
    files: u64,
    bytes: u64,
    /// Bytes of files that were made within the last day: what it grew by, less what was deleted.
    made: u64,
    /// Bytes of older ones that were written to within the last day: it may have grown by a part
    /// of them.
    changed: u64,
    /// How long ago the oldest of its files was made, seconds.
    oldest: u64,
    /// Whether it has more than was looked at.
    cut: bool,
}

/// The differences as text, or as JSON, and whether there are none.
pub fn run(json: bool) -> Result<(String, bool), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("adamant: drift: only root is told by the kernel what it needs to know: run it as root\n".to_owned());
    }
    let policy = policy()?;
    let mut found = findings::all(&policy);
    command_line(&mut found);
    units(&policy, &mut found);
    sockets::look(&policy, &mut found);
    let held = volumes(&policy, &mut found);
    let counts = Counters::open()
        .ok()
        .flatten()
        .and_then(|counters| counters.read().ok());
    if counts.is_none() && policy.seal.level == Level::Guard {
        found.push(Finding::new(
            "guard",
            "its counters",
            "not to be read",
            "there, and open to this program run by root",
        ));
    }
    let denials = counts.unwrap_or([0; HOOKS.len()]);
    let denials: Vec<(&str, String)> = HOOKS
        .iter()
        .zip(denials)
        .filter(|(_, count)| *count > 0)
        .map(|(hook, count)| (*hook, count.to_string()))
        .collect();
    let allowances = policy.seal.allow.used();
    let text = if json {
        about(&policy.image) + &as_json(&found, &denials, &allowances, &held)
    } else {
        as_text(&found, &denials, &allowances, &held)
    };
    Ok((text, found.is_empty()))
}

fn as_text(
    found: &[Finding],
    denials: &[(&str, String)],
    allowances: &[String],
    held: &[Held],
) -> String {
    let mut lines: Vec<String> = found
        .iter()
        .map(|one| super::printable(&one.line()))
        .collect();
    if lines.is_empty() {
        lines.push("no drift".to_owned());
    }
    let list = |all: Vec<String>| {
        if all.is_empty() {
            "none".to_owned()
        } else {
            all.join(", ")
        }
    };
    lines.push(
        [
            "denials: ",
            &list(
                denials
                    .iter()
                    .map(|(hook, count)| [hook, " ", count].concat())
                    .collect(),
            ),
        ]
        .concat(),
    );
    lines.push(["allowances: ", &list(allowances.to_vec())].concat());
    for one in held {
        let more = if one.cut {
            ", and more that was not looked at"
        } else {
            ""
        };
        let kib = |bytes: u64| (bytes >> 10).to_string();
        let growth = [
            ", of the last day ",
            &kib(one.made),
            " KiB made and ",
            &kib(one.changed),
            " KiB changed, the oldest of ",
        ];
        let size = [
            "volume ",
            one.volume,
            ": ",
            &one.files.to_string(),
            " files, ",
            &kib(one.bytes),
            " KiB",
        ];
        lines.push(
            [
                &size.concat(),
                &*growth.concat(),
                &(one.oldest / DAY).to_string(),
                " days",
                more,
            ]
            .concat(),
        );
    }
    lines.join("\n") + "\n"
}

/// Which image it is that nothing should differ from: how the object begins.
fn about(image: &Image) -> String {
    let hash = Root::find().map_or_else(
        |_| "null".to_owned(),
        |root| ["\"", &root.hash, "\""].concat(),
    );
    [
        "{",
        &members(&[("image_id", &image.id), ("image_version", &image.version)]),
        ",\"root_hash\":",
        &hash,
        ",",
    ]
    .concat()
}

/// The rest of the object.
fn as_json(
    found: &[Finding],
    denials: &[(&str, String)],
    allowances: &[String],
    held: &[Held],
) -> String {
    let found: Vec<String> = found
        .iter()
        .map(|one| ["{\"class\":\"", one.class, "\",", &one.members(), "}"].concat())
        .collect();
    let denials: Vec<String> = denials
        .iter()
        .map(|(hook, count)| ["\"", hook, "\":", count].concat())
        .collect();
    let allowances: Vec<String> = allowances
        .iter()
        .map(|one| ["\"", &super::escaped(one), "\""].concat())
        .collect();
    let held = held.iter().map(|one| {
        let numbers = [
            ("files", one.files),
            ("bytes", one.bytes),
            ("made_bytes", one.made),
            ("changed_bytes", one.changed),
            ("oldest_seconds", one.oldest),
        ];
        let numbers: Vec<String> = numbers
            .iter()
            .map(|(key, number)| [",\"", key, "\":", &number.to_string()].concat())
            .collect();
        let cut = if one.cut { "true" } else { "false" };
        [
            "{",
            &members(&[("volume", one.volume)]),
            &numbers.concat(),
            ",\"cut\":",
            cut,
            "}",
        ]
        .concat()
    });
    let held: Vec<String> = held.collect();
    let lists = [
        &found.join(","),
        "],\"denials\":{",
        &denials.join(","),
        "},\"allowances\":[",
        &allowances.join(","),
        "],\"volumes\":[",
        &held.join(","),
    ];
    ["\"drift\":[", &lists.concat(), "]}\n"].concat()
}

/// The root hash in three places: the command line, the report, and the kernel's table, which
/// decides.
fn command_line(found: &mut Vec<Finding>) {
    let Ok(root) = Root::find() else { return };
    let line = read("/proc/cmdline").unwrap_or_default();
    let asked = line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("roothash="))
        .unwrap_or("nothing");
    let report = read(BOOT_REPORT_PATH).unwrap_or_default();
    for (what, hash) in [
        ("roothash=", asked),
        (
            "root_hash of the boot report",
            value(&report, "root_hash").unwrap_or("nothing"),
        ),
    ] {
        if hash != root.hash {
            found.push(Finding::new("cmdline", what, hash, &root.hash));
        }
    }
}

/// Units that the agent did not make, and were made since the boot.
fn units(policy: &Policy, found: &mut Vec<Finding>) {
    let mounts = policy
        .volumes
        .iter()
        .map(|volume| volume.mount.as_str())
        .chain(["/tmp", "/dev/shm", "/etc/machine-id", "/efi", "/boot"]);
    let mut known: Vec<String> = mounts
        .chain(policy.image_data.iter().map(String::as_str))
        .map(unit_name)
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
            // A scope is only a name for processes that others started: it starts none. Sessions
            // are such.
            if !name.ends_with(".scope") && !name.ends_with(".scope.d") {
                found.push(Finding::new(
                    "units",
                    &[folder, "/", &name].concat(),
                    "there",
                    "absent",
                ));
            }
        }
    }
}

/// Walks through all volumes.
fn volumes<'a>(policy: &'a Policy, found: &mut Vec<Finding>) -> Vec<Held<'a>> {
    let image = image_alone();
    let mut left = ENTRIES;
    let mut programs = Vec::new();
    let mut held = Vec::new();
    for volume in &policy.volumes {
        let may_run = policy.seal.allow.execute.contains(&volume.name);
        let mut all = Vec::new();
        let mut one = walk(Path::new(&volume.mount), &mut left, &mut all);
        one.volume = &volume.name;
        held.push(one);
        if !may_run {
            programs.extend(all.into_iter().filter(|path| {
                !image
                    .as_ref()
                    .is_some_and(|image| is_the_images(image, path))
            }));
        }
    }
    for path in programs.iter().take(NAMED) {
        found.push(Finding::new(
            "executables",
            &path.to_string_lossy(),
            "a program that the image did not bring",
            "none",
        ));
    }
    if programs.len() > NAMED {
        found.push(Finding::new(
            "executables",
            "further programs",
            &(programs.len() - NAMED).to_string(),
            "none",
        ));
    }
    held
}

/// Looks at everything of one file system below a folder, and notes its programs.
fn walk<'a>(top: &Path, left: &mut u64, programs: &mut Vec<PathBuf>) -> Held<'a> {
    let mut held = Held::default();
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
                held.cut = true;
                return held;
            }
            *left -= 1;
            if about.is_dir() {
                folders.push(entry.path());
                continue;
            }
            held.count(&about, now);
            if is_program(&entry.path(), &about) {
                programs.push(entry.path());
            }
        }
    }
    held
}

impl Held<'_> {
    fn count(&mut self, about: &Metadata, now: SystemTime) {
        let bytes = about.blocks() * 512;
        self.files += 1;
        self.bytes += bytes;
        // What lies ahead of a clock that was set back is new.
        let age = |time: std::io::Result<SystemTime>| {
            time.ok()
                .map(|time| now.duration_since(time).map_or(0, |age| age.as_secs()))
        };
        let written = age(about.modified()).unwrap_or(0);
        let made = age(about.created()).unwrap_or(written);
        self.oldest = self.oldest.max(made);
        if made < DAY {
            self.made += bytes;
        } else if written < DAY {
            self.changed += bytes;
        }
    }
}

/// Whether the kernel could be asked to run it.
fn is_program(path: &Path, about: &Metadata) -> bool {
    if !about.is_file() || about.permissions().mode() & 0o111 == 0 {
        return false;
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut start));
    read.is_ok() && (start == b"\x7fELF" || start.starts_with(b"#!"))
}

/// Whether the image has the same file at the same place, from where it was copied when the volume
/// was new.
fn is_the_images(image: &OwnedFd, path: &Path) -> bool {
    let theirs = [
        "/proc/self/fd/",
        &image.as_raw_fd().to_string(),
        &path.to_string_lossy(),
    ]
    .concat();
    is_same(Path::new(&theirs), path).unwrap_or(false)
}

fn is_same(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (about, length) = (one.metadata()?, other.metadata()?.len());
    if !about.is_file() || about.len() != length {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut left = length;
    while left > 0 {
        let part = left.min(a.len() as u64) as usize;
        one.read_exact(&mut a[..part])?;
        other.read_exact(&mut b[..part])?;
        if a[..part] != b[..part] {
            return Ok(false);
        }
        left -= part as u64;
    }
    Ok(true)
}

/// The image's tree without what is mounted in it, which no path leads to. `None` where the kernel
/// gives it not: then nothing is known to be the image's.
fn image_alone() -> Option<OwnedFd> {
    clone_mount(c"/").ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn programs_on_volumes_are_found_and_nothing_else_is_called_one() {
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
        let held = walk(&folder, &mut 100, &mut programs);
        programs.sort();
        assert_eq!(programs, [folder.join("a/b/elf"), folder.join("script")]);
        assert_eq!((held.files, held.cut), (6, false));
        assert!(
            held.bytes > 0 && (held.made, held.changed, held.oldest / 60) == (held.bytes, 0, 0)
        );
        let mut later = Held::default();
        let about = fs::metadata(folder.join("data")).unwrap();
        later.count(&about, SystemTime::now() + Duration::from_secs(3 * DAY));
        assert_eq!((later.made, later.changed, later.oldest / DAY), (0, 0, 3));
        let file = File::open(folder.join("data")).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(2 * DAY + 100))
            .unwrap();
        later.count(
            &fs::metadata(folder.join("data")).unwrap(),
            SystemTime::now() + Duration::from_secs(3 * DAY),
        );
        assert_eq!(
            (later.made, later.changed, later.files),
            (0, about.blocks() * 512, 2)
        );
        let mut left = 3;
        assert!(walk(&folder, &mut left, &mut Vec::new()).cut && left == 0);
        assert!(is_same(&folder.join("script"), &folder.join("text")).unwrap());
        assert!(!is_same(&folder.join("script"), &folder.join("data")).unwrap());
        assert!(is_same(&folder.join("script"), &folder.join("nothing")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn both_forms_say_the_same() {
        let found = [Finding::new(
            "mounts",
            "/usr",
            "tmpfs over it",
            "not mounted over",
        )];
        let held = [Held {
            volume: "state",
            files: 3,
            bytes: 4096,
            made: 1024,
            changed: 2048,
            oldest: 2 * DAY + 5,
            cut: false,
        }];
        let (denials, allowances) = ([("file_open", "2".to_owned())], ["jit".to_owned()]);
        assert_eq!(
            as_text(&found, &denials, &allowances, &held),
            "mounts: /usr: is tmpfs over it, should be not mounted over\ndenials: file_open 2\nallowances: jit\nvolume state: 3 files, 4 KiB, \
             of the last day 1 KiB made and 2 KiB changed, the oldest of 2 days\n"
        );
        assert_eq!(
            as_text(&[], &[], &[], &[]),
            "no drift\ndenials: none\nallowances: none\n"
        );
        let image = Image {
            id: "web".to_owned(),
            version: "1.2".to_owned(),
        };
        let json =
            |rest: String| serde_json::from_str::<serde_json::Value>(&(about(&image) + &rest));
        let read = json(as_json(&found, &denials, &allowances, &held)).unwrap();
        assert_eq!(
            (read["image_id"].as_str(), read["image_version"].as_str()),
            (Some("web"), Some("1.2"))
        );
        // This machine's root is none of ours.
        assert!(read["root_hash"].is_null());
        assert_eq!(
            (
                read["drift"][0]["what"].as_str(),
                read["denials"]["file_open"].as_u64()
            ),
            (Some("/usr"), Some(2))
        );
        let volume = &read["volumes"][0];
        assert_eq!(
            [
                &volume["made_bytes"],
                &volume["changed_bytes"],
                &volume["oldest_seconds"]
            ]
            .map(|n| n.as_u64()),
            [Some(1024), Some(2048), Some(2 * DAY + 5)]
        );
        assert_eq!(
            (volume["bytes"].as_u64(), read["allowances"][0].as_str()),
            (Some(4096), Some("jit"))
        );
        assert!(json(as_json(&[], &[], &[], &[])).is_ok());
    }
}
