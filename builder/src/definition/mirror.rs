//! Values of `mirrors`: the address of an archive, lines of sources.list(5), or deb822 stanzas
//! (sources.list(5), "DEB822-STYLE FORMAT").

use std::path::PathBuf;

/// Longest value of `mirrors`, bytes. A stanza may contain a key.
const LIMIT: usize = 64 << 10;
/// Options of apt (sources.list(5)), with their names in the one-line style.
const OPTIONS: &[&str] = &[
    "arch",
    "lang",
    "target",
    "pdiffs",
    "by-hash",
    "allow-insecure",
    "allow-weak",
    "allow-downgrade-to-insecure",
    "trusted",
    "signed-by",
    "check-valid-until",
    "valid-until-min",
    "valid-until-max",
    "check-date",
    "date-max-future",
    "inrelease-path",
    "snapshot",
    "include",
    "exclude",
];
/// Fields of a stanza that are not options.
const FIELDS: &[&str] = &[
    "types",
    "uris",
    "suites",
    "components",
    "enabled",
    "description",
];

/// One value of `mirrors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mirror {
    /// The address of an archive that has the definition's suite.
    Address(String),
    /// Lines in the one-line style.
    Lines(Vec<MirrorLine>),
    /// Stanzas as written, with the suites that they name.
    Stanzas(String, Vec<MirrorSuite>),
}

/// One line of the one-line style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorLine {
    /// The line with single spaces.
    pub text: String,
    /// The suite of the line; `None` for source packages.
    pub entry: Option<MirrorSuite>,
}

/// One suite of one archive, for binary packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorSuite {
    /// Address of the archive.
    pub uri: String,
    /// Name of the suite. With a slash at the end it is a directory without components.
    pub suite: String,
    /// Components.
    pub components: Vec<String>,
    /// Whether apt accepts its packages without a signature.
    pub is_trusted: bool,
    /// Whether apt refuses the archive after its `Valid-Until`.
    pub expires: bool,
    /// Keyrings on the build machine.
    pub signed_by: Vec<PathBuf>,
}

impl Mirror {
    /// Parses a value of `mirrors`.
    pub fn parse(text: &str) -> Result<Mirror, String> {
        let text = text.trim();
        if text.len() > LIMIT {
            return Err(format!(
                "this mirror has {} bytes, but at most {LIMIT} are allowed",
                text.len()
            ));
        }
        if text
            .chars()
            .any(|c| c.is_control() && c != '\n' && c != '\t')
        {
            return Err("this mirror contains a control character (remove it)".to_owned());
        }
        let Some(first) = text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'))
        else {
            return Err(
                "this mirror is empty (write an address, a deb line or a deb822 stanza)".to_owned(),
            );
        };
        if is_line(first) {
            let lines = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            return lines
                .map(MirrorLine::parse)
                .collect::<Result<_, _>>()
                .map(Mirror::Lines);
        }
        if first
            .split_once(':')
            .is_some_and(|(name, _)| is_field(name))
        {
            return stanzas(text).map(|entries| Mirror::Stanzas(text.to_owned(), entries));
        }
        if first.contains(char::is_whitespace) || text.contains('\n') {
            return Err(format!(
                "{first:?} is not a mirror (write an address, a deb line or a deb822 stanza)"
            ));
        }
        address(text).map(|()| Mirror::Address(text.trim_end_matches('/').to_owned()))
    }

    /// The suites that the value names; none for an address.
    pub fn entries(&self) -> impl Iterator<Item = &MirrorSuite> {
        let (lines, stanzas): (&[MirrorLine], &[MirrorSuite]) = match self {
            Mirror::Address(_) => (&[], &[]),
            Mirror::Lines(lines) => (lines, &[]),
            Mirror::Stanzas(_, entries) => (&[], entries),
        };
        lines
            .iter()
            .filter_map(|line| line.entry.as_ref())
            .chain(stanzas)
    }
}

impl MirrorLine {
    fn parse(text: &str) -> Result<MirrorLine, String> {
        let wrong = |why: &str| {
            Err(format!(
                "{text:?}: {why} (write: deb [OPTION=VALUE ...] ADDRESS SUITE COMPONENT ...)"
            ))
        };
        let Some((kind, rest)) = text
            .split_once(char::is_whitespace)
            .filter(|(kind, _)| matches!(*kind, "deb" | "deb-src"))
        else {
            return wrong("this line does not start with deb");
        };
        let mut rest = rest.trim_start();
        let mut options = MirrorOptions::default();
        let mut shown = String::new();
        if let Some(behind) = rest.strip_prefix('[') {
            let Some((inside, behind)) = behind.split_once(']') else {
                return wrong("the options have no closing bracket");
            };
            for option in inside.split_whitespace() {
                let Some((name, value)) = option.split_once('=') else {
                    return wrong(&format!("option {option:?} has no value"));
                };
                options.set(
                    name.trim_end_matches(['+', '-']),
                    value.trim_matches('"'),
                    ',',
                )?;
            }
            shown = format!(
                " [{}]",
                inside.split_whitespace().collect::<Vec<_>>().join(" ")
            );
            rest = behind;
        }
        let mut fields = rest.split_whitespace();
        let Some(uri) = fields.next() else {
            return wrong("the address is missing");
        };
        let Some(suite) = fields.next() else {
            return wrong("the suite is missing");
        };
        let components: Vec<String> = fields.map(str::to_owned).collect();
        let entry = options.entry(uri, suite, &components)?;
        let text = format!("{kind}{shown} {uri} {suite} {}", components.join(" "))
            .trim_end()
            .to_owned();
        Ok(MirrorLine {
            text,
            entry: (kind == "deb").then_some(entry),
        })
    }
}

/// Options that change how adamant reads the archive. apt handles the others.
#[derive(Default)]
struct MirrorOptions {
    is_trusted: bool,
    never_expires: bool,
    signed_by: Vec<PathBuf>,
}

impl MirrorOptions {
    fn set(&mut self, name: &str, value: &str, separator: char) -> Result<(), String> {
        if !OPTIONS.contains(&name) {
            let known: Vec<&str> = OPTIONS.iter().chain(FIELDS).copied().collect();
            return Err(match super::text::nearest(name, &known) {
                Some(near) => {
                    format!("option {name:?} is not known to apt (did you mean {near:?}?)")
                }
                None => format!("option {name:?} is not known to apt (see sources.list(5))"),
            });
        }
        let yes = || matches!(value, "yes" | "true" | "1" | "on" | "with" | "enable");
        let no = || matches!(value, "no" | "false" | "0" | "off" | "without" | "disable");
        match name {
            "trusted" => self.is_trusted = yes(),
            "check-valid-until" => self.never_expires = no(),
            "signed-by" => {
                for word in value
                    .split(|c: char| c == separator || c.is_whitespace())
                    .filter(|word| !word.is_empty())
                {
                    let fingerprint = word.trim_end_matches('!');
                    if word.starts_with('/') {
                        self.signed_by.push(PathBuf::from(word));
                    } else if fingerprint.len() < 16
                        || !fingerprint.bytes().all(|b| b.is_ascii_hexdigit())
                    {
                        let why = "apt takes an absolute path or a fingerprint; for a file beside the definition write `keyring`";
                        return Err(format!("signed-by {word:?} is not a keyring ({why})"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn entry(&self, uri: &str, suite: &str, components: &[String]) -> Result<MirrorSuite, String> {
        address(uri)?;
        let is_flat = suite.ends_with('/');
        if is_flat && !components.is_empty() {
            return Err(format!(
                "{uri} {suite}: a suite that ends in a slash has no components (remove them)"
            ));
        }
        if !is_flat && components.is_empty() {
            return Err(format!(
                "{uri} {suite}: the components are missing (write for example main)"
            ));
        }
        Ok(MirrorSuite {
            uri: uri.trim_end_matches('/').to_owned(),
            suite: suite.to_owned(),
            components: components.to_vec(),
            is_trusted: self.is_trusted,
            expires: !self.never_expires,
            signed_by: self.signed_by.clone(),
        })
    }
}

fn is_line(text: &str) -> bool {
    text.split_whitespace()
        .next()
        .is_some_and(|word| matches!(word, "deb" | "deb-src"))
}

/// Whether this is the name of a field. `http` is not, because an address starts with it.
fn is_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    FIELDS.contains(&&*name) || name.starts_with("x-") || OPTIONS.contains(&option(&name))
}

/// The name of the option in the one-line style.
fn option(field: &str) -> &str {
    match field {
        "architectures" => "arch",
        "languages" => "lang",
        "targets" => "target",
        other => other,
    }
}

fn address(text: &str) -> Result<(), String> {
    let scheme = text
        .split_once(':')
        .map(|(scheme, _)| scheme)
        .unwrap_or_default();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    if !is_scheme || text.len() > 1024 || text.contains(['"', '\'', '\\', '`']) {
        return Err(format!(
            "{text:?} is not an address (write for example http://deb.debian.org/debian, or file:/srv/mirror)"
        ));
    }
    if scheme == "cdrom" {
        return Err(format!(
            "{text:?}: a disc is not a mirror (mount it and write file:/PATH)"
        ));
    }
    Ok(())
}

/// The suites of all enabled stanzas.
fn stanzas(text: &str) -> Result<Vec<MirrorSuite>, String> {
    let mut entries = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if !fields.is_empty() {
                stanza(&std::mem::take(&mut fields), &mut entries)?;
            }
            continue;
        }
        if line.starts_with([' ', '\t']) {
            let Some((_, value)) = fields.last_mut() else {
                return Err(format!(
                    "{line:?}: this line continues no field (write FIELD: VALUE first)"
                ));
            };
            value.push('\n');
            value.push_str(line.trim());
            continue;
        }
        let Some((name, value)) = line
            .split_once(':')
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value))
        else {
            return Err(format!(
                "{line:?} is not a field of a stanza (write FIELD: VALUE)"
            ));
        };
        if fields.iter().any(|(known, _)| *known == name) {
            return Err(format!(
                "field {name:?} occurs twice in a stanza (separate stanzas by an empty line)"
            ));
        }
        fields.push((name, value.trim().to_owned()));
    }
    if entries.is_empty() {
        return Err("no stanza here gives packages (write Types: deb)".to_owned());
    }
    Ok(entries)
}

fn stanza(fields: &[(String, String)], entries: &mut Vec<MirrorSuite>) -> Result<(), String> {
    let get = |name: &str| {
        fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    let list = |name: &str| {
        get(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut options = MirrorOptions::default();
    for (name, value) in fields {
        if FIELDS.contains(&&**name) || name.starts_with("x-") {
            continue;
        }
        // The stanza contains the key itself.
        if name == "signed-by" && value.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
            continue;
        }
        options.set(option(name), value, ' ')?;
    }
    for (name, shown) in [("types", "Types"), ("uris", "URIs"), ("suites", "Suites")] {
        if list(name).is_empty() {
            return Err(format!("a stanza has no {shown} (add the field)"));
        }
    }
    let types = list("types");
    if let Some(other) = types
        .iter()
        .find(|word| !matches!(word.as_str(), "deb" | "deb-src"))
    {
        return Err(format!("Types: {other:?} is not known (use deb)"));
    }
    if get("enabled").is_some_and(|value| matches!(value, "no" | "false" | "0" | "off"))
        || !types.iter().any(|word| word == "deb")
    {
        return Ok(());
    }
    for uri in list("uris") {
        for suite in list("suites") {
            entries.push(options.entry(&uri, &suite, &list("components"))?);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
