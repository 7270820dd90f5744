//! Lines of /etc/fstab and /etc/crypttab, left over from an installed machine, whose device no
//! machine with this image has (fstab(5), crypttab(5), systemd-fstab-generator(8)).

use super::devices::{Devices, Presence, unescaped};
use super::units::Units;
use super::writable::Writable;
use super::{Finding, Image};

const FSTAB: &str = "/etc/fstab";
const CRYPTTAB: &str = "/etc/crypttab";
/// Maximum number of lines listed in a message; the rest is counted.
const NAMED: usize = 40;
/// Mount points of kernel file systems: systemd ignores their lines in fstab.
const KERNELS: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// A line of /etc/fstab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FstabLine {
    number: usize,
    device: String,
    /// The mount point; `none` for swap.
    place: String,
    kind: String,
    options: Vec<String>,
}

impl FstabLine {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|one| one == option)
    }

    fn is_swap(&self) -> bool {
        self.kind == "swap"
    }

    fn is_bind(&self) -> bool {
        self.has("bind") || self.has("rbind")
    }

    fn is_remote(&self) -> bool {
        self.has("_netdev")
    }

    /// Whether a failure does not stop the start: the line is not mounted automatically, or may
    /// fail.
    fn is_optional(&self) -> bool {
        self.has("noauto") || self.has("nofail")
    }

    fn named(&self) -> String {
        let place = if self.is_swap() { "swap" } else { &self.place };
        format!("line {}: {place} ({})", self.number, self.device)
    }
}

/// The lines of /etc/fstab.
pub fn read(image: &Image) -> Vec<FstabLine> {
    parse(&image.text(FSTAB).unwrap_or_default())
}

fn parse(text: &str) -> Vec<FstabLine> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with('#'))
        .filter_map(|(at, line)| {
            let mut fields = line.split_whitespace().map(unescaped);
            let (device, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
            let options = fields
                .next()
                .unwrap_or_default()
                .split(',')
                .map(str::to_owned)
                .collect();
            let place = if place.len() > 1 {
                place.trim_end_matches('/').to_owned()
            } else {
                place
            };
            Some(FstabLine {
                number: at + 1,
                device,
                place,
                kind,
                options,
            })
        })
        .collect()
}

/// Mount points of writable file systems whose device may exist. A bind mount is writable if its
/// source `is_writable`.
pub fn writable_places(
    lines: &[FstabLine],
    devices: &Devices,
    is_writable: impl Fn(&str) -> bool,
) -> Vec<String> {
    let is_mounted = |line: &&FstabLine| {
        if !line.place.starts_with('/')
            || line.place.len() == 1
            || line.has("ro")
            || line.has("noauto")
        {
            return false;
        }
        match line.is_bind() {
            true => is_writable(&line.device),
            false => {
                line.has("nofail")
                    || line.is_remote()
                    || devices.presence(&line.device, &line.kind) != Presence::Absent
            }
        }
    };
    lines
        .iter()
        .filter(is_mounted)
        .map(|line| line.place.clone())
        .collect()
}

/// The effect of a line on the start.
enum Effect {
    /// Emergency mode, after a wait for the device or at once.
    Emergency(String),
    /// A wait for the device, and a failed unit.
    Failure(String),
    /// None: the agent has mounted a file system there.
    Unused(String),
}

/// Checks every line.
pub fn check(
    image: &Image,
    lines: &[FstabLine],
    units: Option<&Units>,
    writable: &Writable,
    devices: &Devices,
) -> Vec<Finding> {
    if image
        .definition
        .kernel
        .cmdline
        .split_whitespace()
        .any(|word| {
            matches!(
                word,
                "fstab=no" | "systemd.fstab=no" | "fstab=0" | "systemd.fstab=0"
            )
        })
    {
        return Vec::new();
    }
    let (mut stops, mut fails, mut unused) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        // A unit of the same name in /etc overrides the unit that systemd generates from the line,
        // even if it is empty.
        if units.is_some() && image.is_named(&format!("/etc/systemd/system/{}", unit_name(line))) {
            continue;
        }
        match effect(image, line, writable, devices) {
            Some(Effect::Emergency(what)) => stops.push(what),
            Some(Effect::Failure(what)) => fails.push(what),
            Some(Effect::Unused(what)) => unused.push(what),
            None => {}
        }
    }
    let remedy = "remove the file: [[file]] path = \"/etc/fstab\", absent = true; or keep only lines for devices of this image, such as LABEL=NAME of a volume. \
                  A line for a disk that is attached to the machine needs the option nofail";
    let finding = |is_error, rule, message: &str, lines: Vec<String>, hint: &str| {
        (!lines.is_empty()).then(|| Finding {
            is_error,
            rule,
            message: format!("{FSTAB} {message}: {}", listed(&lines)),
            hint: hint.to_owned(),
        })
    };
    let stop = match units {
        Some(_) => "has lines that stop the boot in emergency mode, where no login is possible",
        None => "has lines that cannot be mounted",
    };
    [
        finding(units.is_some(), "stale-fstab", stop, stops, remedy),
        finding(
            false,
            "stale-fstab",
            "has lines that make the boot wait for a missing device and then fail",
            fails,
            remedy,
        ),
        finding(
            false,
            "fstab-on-volume",
            "has lines for mount points that the agent mounts itself, so they have no effect",
            unused,
            "remove these lines",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn effect(
    image: &Image,
    line: &FstabLine,
    writable: &Writable,
    devices: &Devices,
) -> Option<Effect> {
    if line.has("noauto")
        || KERNELS
            .iter()
            .any(|own| line.place == *own || adamant_contract::policy::is_below(&line.place, own))
    {
        return None;
    }
    let presence = if line.is_bind() {
        Presence::File
    } else {
        devices.presence(&line.device, &line.kind)
    };
    let named = line.named();
    let is_missing_file =
        presence == Presence::File && !image.exists(&line.device) && !writable.holds(&line.device);
    let trouble = match presence {
        Presence::Absent => Some(format!("{named}: this image's disk has no such device")),
        _ if is_missing_file && !line.is_remote() => {
            Some(format!("{named}: {} is not in the image", line.device))
        }
        _ => None,
    };
    if let Some(trouble) = trouble
        .clone()
        .filter(|_| !line.is_optional() && !line.is_remote())
    {
        // Nothing waits for swap, or for an automount point before its first access.
        let waits = line.is_swap() || line.has("x-systemd.automount");
        return Some(if waits {
            Effect::Failure(trouble)
        } else {
            Effect::Emergency(trouble)
        });
    }
    if line.is_swap() {
        return None;
    }
    if line.place == "/" {
        return (!line.is_optional())
            .then(|| Effect::Unused(format!("{named}: the root is the verified image")));
    }
    if let Some(volume) = image
        .definition
        .volumes
        .iter()
        .find(|volume| volume.policy.mount == line.place)
    {
        let name = &volume.policy.name;
        let is_own = [
            "LABEL=",
            "PARTLABEL=",
            "/dev/disk/by-label/",
            "/dev/disk/by-partlabel/",
        ]
        .iter()
        .any(|begin| {
            line.device
                .strip_prefix(begin)
                .is_some_and(|label| label.trim_matches('"') == name)
        });
        return (!is_own)
            .then(|| Effect::Unused(format!("{named}: the volume {name:?} is mounted there")));
    }
    // A mount point must be a directory, except for a file that is bind-mounted over a file.
    let is_there = image.is_directory(&line.place) || line.is_bind() && image.exists(&line.place);
    if trouble.is_none()
        && line.place.starts_with('/')
        && !is_there
        && !writable.holds(parent(&line.place))
        && !line.is_optional()
    {
        let what = format!(
            "{named}: the image has no directory {}, and it cannot be created on the read-only root",
            line.place
        );
        let is_local = !line.is_remote()
            && !line.has("x-systemd.automount")
            && !matches!(
                line.kind.as_str(),
                "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "glusterfs"
            );
        return Some(if is_local {
            Effect::Emergency(what)
        } else {
            Effect::Failure(what)
        });
    }
    None
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(
        "/",
        |(parent, _)| if parent.is_empty() { "/" } else { parent },
    )
}

/// The name of the unit that systemd generates from the line (systemd-escape(1)).
fn unit_name(line: &FstabLine) -> String {
    let (path, kind) = if line.is_swap() {
        (&line.device, "swap")
    } else {
        (&line.place, "mount")
    };
    let trimmed = path.trim_matches('/');
    if trimmed.is_empty() {
        return format!("-.{kind}");
    }
    let mut name = String::new();
    for (at, byte) in trimmed.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b if b.is_ascii_alphanumeric() || b":_.".contains(&b) => name.push(char::from(b)),
            b => name.push_str(&format!("\\x{b:02x}")),
        }
    }
    format!("{name}.{kind}")
}

/// Finds devices of /etc/crypttab that the machine lacks. Adds the mapped devices that it can open.
pub fn check_crypttab(
    image: &Image,
    devices: &mut Devices,
    writable: impl Fn(&str) -> bool,
) -> Option<Finding> {
    let mut stale = Vec::new();
    for (at, line) in image.text(CRYPTTAB).unwrap_or_default().lines().enumerate() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, device, more @ ..] = &fields[..] else {
            continue;
        };
        if name.starts_with('#') {
            continue;
        }
        let options: Vec<&str> = more
            .get(1)
            .into_iter()
            .flat_map(|options| options.split(','))
            .collect();
        let is_optional = ["noauto", "nofail", "_netdev"]
            .iter()
            .any(|option| options.contains(option));
        match devices.presence(device, "crypt") {
            Presence::File if !image.exists(device) && !writable(device) => {}
            Presence::Absent | Presence::NoDevice => {}
            Presence::Present | Presence::File => {
                devices.add_mapped(name);
                continue;
            }
        }
        if !is_optional {
            stale.push(format!("line {}: {name} ({device})", at + 1));
        }
    }
    (!stale.is_empty()).then(|| Finding {
        is_error: false,
        rule: "stale-crypttab",
        message: format!("{CRYPTTAB} names devices that this image's disk does not have; the machine waits 90 seconds for them: {}", listed(&stale)),
        hint: "remove the file: [[file]] path = \"/etc/crypttab\", absent = true; a disk that is attached to the machine needs the option nofail".to_owned(),
    })
}

fn listed(lines: &[String]) -> String {
    let more = if lines.len() > NAMED {
        format!("; and {} more", lines.len() - NAMED)
    } else {
        String::new()
    };
    format!("{}{more}", lines[..lines.len().min(NAMED)].join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_escapes_and_comments() {
        let text = "# x\n\n  # y\nLABEL=a\t/srv/my\\040data  ext4\tdefaults,nofail 0 2\n/dev/vdb none swap\nbroken /only\nUUID=x /b/ ext4 sw 0 0";
        let lines = parse(text);
        let read: Vec<_> = lines
            .iter()
            .map(|line| {
                (
                    line.number,
                    line.device.as_str(),
                    line.place.as_str(),
                    line.options.len(),
                )
            })
            .collect();
        assert_eq!(
            read,
            [
                (4, "LABEL=a", "/srv/my data", 2),
                (5, "/dev/vdb", "none", 1),
                (7, "UUID=x", "/b", 1)
            ]
        );
        assert!(lines[0].is_optional() && lines[1].is_swap() && !lines[2].is_optional());
    }

    #[test]
    fn names_units_of_fstab_lines_as_systemd_does() {
        let name = |place: &str| {
            unit_name(&FstabLine {
                number: 1,
                device: "/dev/disk/by-uuid/a-b".to_owned(),
                place: place.to_owned(),
                kind: "ext4".to_owned(),
                options: Vec::new(),
            })
        };
        assert_eq!(
            (
                name("/"),
                name("/boot/efi"),
                name("/srv/a-b"),
                name("/.x y")
            ),
            (
                "-.mount".into(),
                "boot-efi.mount".into(),
                "srv-a\\x2db.mount".into(),
                "\\x2ex\\x20y.mount".into()
            )
        );
    }
}
