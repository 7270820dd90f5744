//! The units that start at boot: their names, missing units, and the paths that they write to
//! (systemd.unit(5), systemd.exec(5)).

use std::collections::{BTreeMap, BTreeSet};

use super::unit::{FOLDERS, Lookup, Unit, look_up};
use super::writable::Writable;
use super::{Finding, Image, listed};
use crate::tree::Kind;

/// Targets that every boot reaches.
const TARGETS: [&str; 4] = [
    "default.target",
    "local-fs.target",
    "sysinit.target",
    "multi-user.target",
];
/// Unit types that need no file: systemd creates them from devices or from /etc/fstab.
const WITHOUT_FILE: [&str; 6] = ["device", "mount", "swap", "automount", "slice", "scope"];

/// Programs that generate units at the start.
const GENERATORS: [&str; 4] = [
    "/etc/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
    "/lib/systemd/system-generators",
];
/// Maximum size of a generator, bytes.
const GENERATOR_LIMIT: u64 = 16 << 20;

/// Units that start at boot.
#[derive(Default)]
pub struct Units {
    enabled: BTreeMap<String, Unit>,
    /// Aliases of units.
    aliases: BTreeSet<String>,
    /// Units that the default target requires.
    required: BTreeSet<String>,
    missing: Vec<Missing>,
}

/// A missing unit, and the reason why it is needed.
struct Missing {
    name: String,
    asked: Asked,
}

/// Why a unit is needed.
#[derive(Clone)]
enum Asked {
    /// A link in a directory of wants, requires or upholds, and the unit of that directory.
    Link {
        path: String,
        owner: String,
        is_required: bool,
    },
    /// A setting of a unit.
    Setting { owner: String, key: &'static str },
    /// No specific reason.
    Boot,
}

impl Units {
    /// Follows wants, requires and upholds from the default target.
    pub fn read(image: &Image) -> Units {
        let mut units = Units::default();
        let mut todo: Vec<(String, Asked)> = TARGETS
            .iter()
            .rev()
            .map(|name| ((*name).to_owned(), Asked::Boot))
            .collect();
        let mut needs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut known: BTreeMap<String, bool> = BTreeMap::new();
        while let Some((name, asked)) = todo.pop() {
            if let Some(is_missing) = known.get(&name) {
                if *is_missing {
                    units.note_missing(image, &name, asked);
                }
                continue;
            }
            let unit = match look_up(image, &name) {
                Lookup::Unit(unit) => unit,
                Lookup::Alias(real) => {
                    needs.entry(name.clone()).or_default().push(real.clone());
                    known.insert(name.clone(), false);
                    // The directories of an alias apply to the unit, too.
                    todo.extend(linked(image, &name, &mut needs));
                    todo.push((real, asked));
                    units.aliases.insert(name);
                    continue;
                }
                Lookup::Masked => {
                    known.insert(name, false);
                    continue;
                }
                Lookup::Missing => {
                    known.insert(name.clone(), true);
                    units.note_missing(image, &name, asked);
                    continue;
                }
            };
            known.insert(name.clone(), false);
            for key in ["Requires", "BindsTo"] {
                needs
                    .entry(name.clone())
                    .or_default()
                    .extend(unit.words(key).map(str::to_owned));
                todo.extend(unit.words(key).map(|other| {
                    (
                        other.to_owned(),
                        Asked::Setting {
                            owner: name.clone(),
                            key,
                        },
                    )
                }));
            }
            // A wanted unit may be missing: units list optional units of other packages.
            for key in ["Wants", "Upholds"] {
                todo.extend(unit.words(key).map(|other| (other.to_owned(), Asked::Boot)));
            }
            todo.extend(linked(image, &name, &mut needs));
            todo.extend(started_by(&name, &unit));
            units.enabled.insert(name, unit);
        }
        let mut reached: Vec<String> = vec![
            "default.target".to_owned(),
            "local-fs.target".to_owned(),
            "sysinit.target".to_owned(),
        ];
        while let Some(name) = reached.pop() {
            if units.required.insert(name.clone()) {
                reached.extend(needs.get(&name).into_iter().flatten().cloned());
            }
        }
        units
    }

    /// Enabled units, by name.
    pub fn enabled(&self) -> impl Iterator<Item = (&str, &Unit)> {
        self.enabled
            .iter()
            .map(|(name, unit)| (name.as_str(), unit))
    }

    /// Whether the default target requires this unit.
    pub fn is_required(&self, name: &str) -> bool {
        self.required.contains(name)
    }

    /// Whether one of these starts at boot.
    pub fn any(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| self.enabled.contains_key(*name) || self.aliases.contains(*name))
    }

    /// Whether a command of any unit contains this text.
    pub fn runs_command(&self, text: &str) -> bool {
        self.enabled
            .values()
            .flat_map(Unit::settings)
            .any(|setting| setting.key.starts_with("Exec") && setting.value.contains(text))
    }

    /// Mount points of enabled mount units that are not read-only.
    pub fn mounts(&self) -> Vec<String> {
        let mounts = self
            .enabled
            .iter()
            .filter(|(name, _)| name.ends_with(".mount"));
        mounts
            .filter(|(_, unit)| {
                !unit
                    .values("Options")
                    .any(|options| options.split(',').any(|option| option == "ro"))
            })
            .filter_map(|(_, unit)| unit.values("Where").next().map(str::to_owned))
            .collect()
    }

    fn note_missing(&mut self, image: &Image, name: &str, asked: Asked) {
        let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
        // systemd generates services from /etc/init.d, and generators add others at the start.
        let stem = name.strip_suffix(".service").unwrap_or(name);
        let is_script = image.exists(&format!("/etc/init.d/{stem}"))
            || image.exists(&format!("/etc/init.d/{stem}.sh"));
        if WITHOUT_FILE.contains(&kind)
            || name.contains('%')
            || is_script
            || is_generated(image, name)
        {
            return;
        }
        self.missing.push(Missing {
            name: name.to_owned(),
            asked,
        });
    }

    /// Enabled or required units that do not exist.
    pub fn check_missing(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self
            .missing
            .iter()
            .any(|missing| missing.name == "default.target")
        {
            findings.push(Finding {
                is_error: false,
                rule: "no-default-target",
                message: "systemd has no default.target: it does not know what to start, and stops in rescue mode".to_owned(),
                hint: "[[file]] path = \"/etc/systemd/system/default.target\", link = \"/usr/lib/systemd/system/multi-user.target\"".to_owned(),
            });
        }
        let mut told = BTreeSet::new();
        for Missing { name, asked } in &self.missing {
            let (message, hint, is_error) = match asked {
                Asked::Boot => continue,
                Asked::Link {
                    path,
                    owner,
                    is_required,
                } => (
                    format!("{name} is enabled by {path}, and no such unit exists"),
                    format!(
                        "add the package that brings the unit, or remove the link: [[file]] path = {path:?}, absent = true"
                    ),
                    *is_required && self.is_required(owner),
                ),
                Asked::Setting { owner, key } => (
                    format!("{owner} cannot start: it has {key}={name}, and no such unit exists"),
                    format!(
                        "add the package that brings {name}, or mask {owner}: [[file]] path = \"/etc/systemd/system/{owner}\", link = \"/dev/null\""
                    ),
                    self.is_required(owner),
                ),
            };
            if told.insert(message.clone()) {
                findings.push(Finding {
                    is_error,
                    rule: "unit-missing",
                    message,
                    hint,
                });
            }
        }
        findings
    }

    /// Units that write to paths which are not writable, grouped by path.
    pub fn check(&self, image: &Image, writable: &Writable) -> Vec<Finding> {
        let mut by_place: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, unit) in &self.enabled {
            if unit.is_skipped(image, writable) {
                continue;
            }
            for path in unit.writes() {
                // Instances and specifiers are unknown before the unit runs.
                if !path.contains('%') && !writable.holds(&path) && !unit.finds(image, &path) {
                    by_place
                        .entry(place_of(&path))
                        .or_default()
                        .push(format!("{name} ({path})"));
                }
            }
        }
        by_place
            .into_iter()
            .map(|(place, units)| Finding {
                is_error: false,
                rule: "unit-writes-read-only",
                message: format!("units write below {place}, which is read-only: {}", listed(&units)),
                hint: match place.as_str() {
                    "/etc" | "/usr" | "/boot" => format!(
                        "change the path with a drop-in, or mask the unit: [[file]] path = \"/etc/systemd/system/{}\", link = \"/dev/null\"",
                        first_unit(&units)
                    ),
                    _ => format!("[[volume]] name = {:?}, mount = {place:?}, size = \"64M\"", place.trim_start_matches('/').replace('/', "-")),
                },
            })
            .collect()
    }
}

/// Whether a generator (systemd.generator(7)) contains the unit's name, and so probably creates it.
fn is_generated(image: &Image, name: &str) -> bool {
    let text = name
        .split_once('@')
        .map_or(name.to_owned(), |(stem, _)| format!("{stem}@"));
    GENERATORS
        .iter()
        .flat_map(|folder| {
            image
                .names(folder)
                .into_iter()
                .map(move |name| format!("{folder}/{name}"))
        })
        .any(|path| {
            let id = image.tree.resolve(path.as_bytes());
            let bytes = id.and_then(|id| match &image.tree.node(id).kind {
                Kind::File(content) => content.to_vec(GENERATOR_LIMIT).ok(),
                _ => None,
            });
            bytes.is_some_and(|bytes| memchr::memmem::find(&bytes, text.as_bytes()).is_some())
        })
}

/// The units that the links in a unit's directories name. A link to /dev/null in a directory of
/// higher priority cancels one of lower priority.
fn linked(
    image: &Image,
    owner: &str,
    needs: &mut BTreeMap<String, Vec<String>>,
) -> Vec<(String, Asked)> {
    let mut out = Vec::new();
    for kind in ["wants", "requires", "upholds"] {
        let mut names: BTreeMap<String, Option<String>> = BTreeMap::new();
        for folder in FOLDERS {
            let folder = format!("{folder}/{owner}.{kind}");
            for name in image.names(&folder) {
                let path = format!("{folder}/{name}");
                let node = image.tree.resolve(folder.as_bytes()).and_then(|id| {
                    image
                        .tree
                        .children(id)
                        .find(|(child, _)| *child == name.as_bytes())
                });
                let is_null = node.is_some_and(|(_, id)| matches!(&image.tree.node(id).kind, Kind::Symlink(target) if &**target == b"/dev/null"));
                names.entry(name).or_insert((!is_null).then_some(path));
            }
        }
        for (name, path) in names {
            let Some(path) = path else { continue };
            if kind == "requires" {
                needs
                    .entry(owner.to_owned())
                    .or_default()
                    .push(name.clone());
            }
            out.push((
                name,
                Asked::Link {
                    path,
                    owner: owner.to_owned(),
                    is_required: kind == "requires",
                },
            ));
        }
    }
    out
}

/// A socket, timer or path unit starts the service of its name, or the service that it names.
fn started_by(name: &str, unit: &Unit) -> Option<(String, Asked)> {
    let (stem, kind) = name.rsplit_once('.')?;
    let key = match kind {
        "socket" => "Service",
        "timer" | "path" => "Unit",
        _ => return None,
    };
    let own = match kind == "socket" && unit.is_on("Accept") {
        true => format!("{stem}@.service"),
        false => format!("{stem}.service"),
    };
    Some((
        unit.last(key).map_or(own, str::to_owned),
        Asked::Setting {
            owner: name.to_owned(),
            key,
        },
    ))
}

fn first_unit(units: &[String]) -> &str {
    units
        .first()
        .and_then(|unit| unit.split(' ').next())
        .unwrap_or_default()
}

/// The top-level directory that a volume could be mounted at.
fn place_of(path: &str) -> String {
    format!(
        "/{}",
        path.trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default()
    )
}

impl Unit {
    /// Absolute paths that the unit writes to.
    fn writes(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for (key, base) in [
            ("StateDirectory", "/var/lib"),
            ("CacheDirectory", "/var/cache"),
            ("LogsDirectory", "/var/log"),
            ("ConfigurationDirectory", "/etc"),
        ] {
            // `name:link` also creates a link.
            let names = self.words(key).filter_map(|name| name.split(':').next());
            paths.extend(names.map(|name| format!("{base}/{name}")));
        }
        for key in ["ReadWritePaths", "ReadWriteDirectories"] {
            // With the prefix `-`, the path may be missing. A top-level directory (`/etc` for
            // logind and hostnamed) is a permission for later requests, which the unit does not
            // need at its start.
            let is_deep = |path: &&str| {
                path.starts_with('/') && path.trim_end_matches('/').matches('/').count() > 1
            };
            paths.extend(self.words(key).filter(is_deep).map(str::to_owned));
        }
        paths.extend(self.values("PIDFile").map(|path| {
            if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/run/{path}")
            }
        }));
        for key in ["StandardOutput", "StandardError"] {
            let files = self.values(key).filter_map(|value| {
                ["file:", "append:", "truncate:"]
                    .iter()
                    .find_map(|kind| value.strip_prefix(kind))
            });
            paths.extend(files.map(str::to_owned));
        }
        paths
    }

    /// A configuration directory that exists in the image is not created.
    fn finds(&self, image: &Image, path: &str) -> bool {
        path.strip_prefix("/etc/")
            .is_some_and(|name| self.words("ConfigurationDirectory").any(|own| own == name))
            && image.is_directory(path)
    }
}
