//! Programs of units that cannot be started (systemd.service(5)).

use super::fault::Fault;
use super::program::Programs;
use super::unit::Unit;
use super::units::Units;
use super::writable::Writable;
use super::{Finding, Image, PATH};

/// Settings whose command must succeed for the unit to start.
const COMMANDS: [&str; 4] = [
    "ExecCondition",
    "ExecStartPre",
    "ExecStart",
    "ExecStartPost",
];
/// Settings that give a unit another root than the image's.
const OTHER_FILES: [&str; 8] = [
    "RootDirectory",
    "RootImage",
    "RootMStack",
    "MountImages",
    "ExtensionImages",
    "ExtensionDirectories",
    "BindPaths",
    "BindReadOnlyPaths",
];
/// Where programs register their own formats with the kernel (binfmt.d(5), update-binfmts(8)).
const FORMATS: [&str; 4] = [
    "/etc/binfmt.d",
    "/usr/lib/binfmt.d",
    "/usr/local/lib/binfmt.d",
    "/var/lib/binfmts",
];

pub fn check(
    image: &Image,
    units: &Units,
    writable: &Writable,
    programs: &Programs,
) -> Vec<Finding> {
    let has_formats = FORMATS.iter().any(|folder| !image.names(folder).is_empty());
    let mut findings = Vec::new();
    for (name, unit) in units.enabled() {
        if unit.is_skipped(image, writable)
            || OTHER_FILES
                .iter()
                .any(|key| unit.values(key).next().is_some())
        {
            continue;
        }
        for key in COMMANDS {
            for command in unit.values(key).flat_map(commands) {
                if command.may_fail {
                    continue;
                }
                let (path, fault) = match find(&command.program, unit, programs) {
                    Some(found) => found,
                    None => continue,
                };
                // Programs that a running machine provides, or can start by registered formats, are
                // unknown here.
                let is_unknown = match &fault {
                    Fault::NoProgram => has_formats,
                    Fault::Missing | Fault::Dangling(..) => writable.holds(&path),
                    _ => false,
                };
                if !is_unknown {
                    findings.push(Finding {
                        is_error: false,
                        rule: "unit-program-cannot-run",
                        message: format!("{name} cannot start: {key}={}: {fault}", command.program),
                        hint: format!("{}; or mask the unit: [[file]] path = \"/etc/systemd/system/{name}\", link = \"/dev/null\"", fault.remedy(&path)),
                    });
                }
            }
        }
    }
    findings
}

/// The program's path and why it cannot be started; `None` if it can, or if that depends on the
/// running unit.
fn find(program: &str, unit: &Unit, programs: &Programs) -> Option<(String, Fault)> {
    if program.is_empty() || program.contains(['%', '$']) {
        return None;
    }
    if program.contains('/') {
        return program
            .starts_with('/')
            .then(|| {
                programs
                    .fault(program)
                    .map(|fault| (program.to_owned(), fault))
            })
            .flatten();
    }
    let own: Vec<&str> = unit
        .values("ExecSearchPath")
        .flat_map(|list| list.split(':'))
        .collect();
    let folders: Vec<&str> = if own.is_empty() { PATH.to_vec() } else { own };
    let mut first = None;
    for folder in folders {
        let path = format!("{folder}/{program}");
        match programs.fault(&path) {
            None => return None,
            // A file that is not executable: systemd continues its search.
            Some(Fault::Missing | Fault::NotExecutable) => {}
            Some(fault) => first = first.or(Some((path, fault))),
        }
    }
    first.or(Some((format!("/usr/bin/{program}"), Fault::Missing)))
}

/// A command of a unit.
#[derive(Debug, PartialEq, Eq)]
struct Command {
    program: String,
    /// Whether the unit tolerates a failure.
    may_fail: bool,
}

/// The commands of one line, separated by ` ; `.
fn commands(line: &str) -> Vec<Command> {
    let mut out = Vec::new();
    let mut is_first = true;
    for word in words(line) {
        if word == ";" {
            is_first = true;
        } else if is_first {
            is_first = false;
            let program = word.trim_start_matches(['@', '-', ':', '+', '!', '|']);
            let prefix = &word[..word.len() - program.len()];
            out.push(Command {
                program: program.to_owned(),
                may_fail: prefix.contains('-'),
            });
        }
    }
    out
}

/// The words of a line, without quotes. Only the first word of each command is used, so escapes are
/// not decoded.
fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let (mut is_word, mut quote, mut escaped) = (false, None, false);
    for c in line.chars() {
        match quote {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            _ if c == '\\' => {
                (is_word, escaped) = (true, true);
                word.push(c);
            }
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => (is_word, quote) = (true, Some(c)),
            None if c.is_whitespace() => {
                if is_word {
                    out.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            _ => {
                is_word = true;
                word.push(c);
            }
        }
    }
    if is_word {
        out.push(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_commands_without_their_prefixes_and_quotes() {
        let read = |line: &str| {
            commands(line)
                .into_iter()
                .map(|command| (command.program, command.may_fail))
                .collect::<Vec<_>>()
        };
        let one = |program: &str, may_fail| vec![(program.to_owned(), may_fail)];
        assert_eq!(read("/bin/a -x 'b c'"), one("/bin/a", false));
        assert_eq!(read("-/bin/a"), one("/bin/a", true));
        assert_eq!(read("@-:+!!/bin/a a0 b"), one("/bin/a", true));
        assert_eq!(read("\"/opt/my app/run\" x"), one("/opt/my app/run", false));
        assert_eq!(
            read("/bin/a x ; -/bin/b y ; c"),
            [one("/bin/a", false), one("/bin/b", true), one("c", false)].concat()
        );
        assert_eq!(read("/bin/sh -c 'a ; b' \\; c"), one("/bin/sh", false));
        assert_eq!(read(""), []);
    }
}
