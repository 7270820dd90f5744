//! systemd's units that start at boot, and where they want to write (systemd.unit(5), systemd.exec(5)).

use std::collections::{BTreeMap, BTreeSet};

use super::writable::Writable;
use super::{Finding, Image, listed};
use crate::tree::Kind;

/// Where units are, the strongest first.
const FOLDERS: [&str; 4] = ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Units that start at boot, each with its settings.
pub struct Units {
    enabled: BTreeMap<String, Unit>,
}

/// Settings in order, drop-ins last: key and value.
struct Unit {
    settings: Vec<(String, String)>,
}

impl Units {
    /// Follows wants, requires and upholds from the default target.
    pub fn read(image: &Image) -> Units {
        let mut enabled = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut todo = vec!["default.target".to_owned(), "local-fs.target".to_owned(), "sysinit.target".to_owned(), "multi-user.target".to_owned()];
        while let Some(name) = todo.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let Some(unit) = Unit::read(image, &name) else { continue };
            for key in ["Wants", "Requires", "BindsTo", "Upholds"] {
                todo.extend(unit.values(key).flat_map(str::split_whitespace).map(str::to_owned));
            }
            for folder in FOLDERS {
                for kind in ["wants", "requires", "upholds"] {
                    todo.extend(image.names(&format!("{folder}/{name}.{kind}")));
                }
            }
            // A socket, timer or path starts the service of its name.
            if let Some((stem, "socket" | "timer" | "path")) = name.rsplit_once('.') {
                todo.push(unit.values("Unit").next().map_or_else(|| format!("{stem}.service"), str::to_owned));
            }
            enabled.insert(name, unit);
        }
        Units { enabled }
    }

    /// Whether one of these starts at boot.
    pub fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.enabled.contains_key(*name))
    }

    /// Whether a command of any unit holds this text.
    pub fn run(&self, text: &str) -> bool {
        self.enabled.values().any(|unit| unit.settings.iter().any(|(key, value)| key.starts_with("Exec") && value.contains(text)))
    }

    /// Mount points of enabled mount units that are not read-only.
    pub fn mounts(&self) -> Vec<String> {
        let mounts = self.enabled.iter().filter(|(name, _)| name.ends_with(".mount"));
        mounts
            .filter(|(_, unit)| !unit.values("Options").any(|options| options.split(',').any(|option| option == "ro")))
            .filter_map(|(_, unit)| unit.values("Where").next().map(str::to_owned))
            .collect()
    }

    /// Units that want to write where nothing is writable, gathered by place.
    pub fn check(&self, image: &Image, writable: &Writable) -> Vec<Finding> {
        let mut by_place: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, unit) in &self.enabled {
            if unit.is_skipped(image, writable) {
                continue;
            }
            for path in unit.writes() {
                // Instances and specifiers are not known before the unit runs.
                if !path.contains('%') && !writable.holds(&path) && !unit.finds(image, &path) {
                    by_place.entry(place_of(&path)).or_default().push(format!("{name} ({path})"));
                }
            }
        }
        by_place
            .into_iter()
            .map(|(place, units)| Finding {
                is_error: false,
                rule: "unit-writes-read-only",
                message: format!("units want to write below {place}, where nothing is writable: {}", listed(&units)),
                hint: match place.as_str() {
                    "/etc" | "/usr" | "/boot" => format!(
                        "give it another place with a drop-in, or mask it: [[file]] path = \"/etc/systemd/system/{}\", link = \"/dev/null\"",
                        first_unit(&units)
                    ),
                    _ => format!("[[volume]] name = {:?}, mount = {place:?}, size = \"64M\"", place.trim_start_matches('/').replace('/', "-")),
                },
            })
            .collect()
    }
}

fn first_unit(units: &[String]) -> &str {
    units.first().and_then(|unit| unit.split(' ').next()).unwrap_or_default()
}

/// The directory at the top that a volume could be for.
fn place_of(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/').split('/').next().unwrap_or_default())
}

impl Unit {
    /// The strongest file of this name with all drop-ins; nothing where there is none or it is masked.
    fn read(image: &Image, name: &str) -> Option<Unit> {
        // `getty@tty1.service` is an instance of `getty@.service`.
        let template = name.split_once('@').and_then(|(stem, rest)| Some(format!("{stem}@.{}", rest.rsplit_once('.')?.1)));
        let mut text = None;
        for candidate in std::iter::once(name).chain(template.as_deref()) {
            if text.is_some() || candidate.contains('/') {
                break;
            }
            for folder in FOLDERS {
                let path = format!("{folder}/{candidate}");
                let Some(id) = image.tree.lookup(path.as_bytes()).or_else(|| image.tree.resolve(path.as_bytes())) else { continue };
                if matches!(&image.tree.node(id).kind, Kind::Symlink(target) if &**target == b"/dev/null") {
                    return None;
                }
                text = image.text(&path);
                break;
            }
        }
        let mut text = text?;
        if text.trim().is_empty() {
            return None;
        }
        for folder in FOLDERS.iter().rev() {
            for drop_in in [Some(name), template.as_deref()].into_iter().flatten() {
                let mut names = image.names(&format!("{folder}/{drop_in}.d"));
                names.retain(|file| file.ends_with(".conf"));
                for file in names {
                    text.push('\n');
                    text.push_str(&image.text(&format!("{folder}/{drop_in}.d/{file}")).unwrap_or_default());
                }
            }
        }
        Some(Unit { settings: parse(&text) })
    }

    /// All values of a key; an empty one takes back those before it.
    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let reset = self.settings.iter().rposition(|(name, value)| name == key && value.is_empty()).map_or(0, |at| at + 1);
        self.settings[reset..].iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether a condition keeps it from starting on this image, so that it can't fail.
    fn is_skipped(&self, image: &Image, writable: &Writable) -> bool {
        let read_write = self.values("ConditionPathIsReadWrite").any(|path| !path.starts_with('!') && !writable.holds(path.trim_start_matches('|')));
        // What is not in the image, and can't be made, is not there.
        let missing = self.values("ConditionPathExists").any(|path| path.starts_with('/') && !writable.holds(path) && !image.exists(path));
        read_write || missing
    }

    /// Absolute paths that it writes.
    fn writes(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for (key, base) in [("StateDirectory", "/var/lib"), ("CacheDirectory", "/var/cache"), ("LogsDirectory", "/var/log"), ("ConfigurationDirectory", "/etc")]
        {
            // `name:link` makes a link beside it.
            let names = self.values(key).flat_map(str::split_whitespace).filter_map(|name| name.split(':').next());
            paths.extend(names.map(|name| format!("{base}/{name}")));
        }
        for key in ["ReadWritePaths", "ReadWriteDirectories"] {
            // `-` says that it need not be there; the unit copes. A whole top directory (`/etc` for logind and hostnamed) is a permission for
            // what a person may ask for later, not something that the unit needs to start.
            let is_deep = |path: &&str| path.starts_with('/') && path.trim_end_matches('/').matches('/').count() > 1;
            paths.extend(self.values(key).flat_map(str::split_whitespace).filter(is_deep).map(str::to_owned));
        }
        paths.extend(self.values("PIDFile").map(|path| if path.starts_with('/') { path.to_owned() } else { format!("/run/{path}") }));
        for key in ["StandardOutput", "StandardError"] {
            let files = self.values(key).filter_map(|value| ["file:", "append:", "truncate:"].iter().find_map(|kind| value.strip_prefix(kind)));
            paths.extend(files.map(str::to_owned));
        }
        paths
    }

    /// A configuration directory that the image has need not be made.
    fn finds(&self, image: &Image, path: &str) -> bool {
        path.strip_prefix("/etc/").is_some_and(|name| self.values("ConfigurationDirectory").any(|names| names.split_whitespace().any(|n| n == name)))
            && image.is_directory(path)
    }
}

/// Lines of `Key=Value`; a backslash at the end joins the next line.
fn parse(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '[']));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}
