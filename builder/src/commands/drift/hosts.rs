//! The hosts to query: names from the command line and from a file.
//!
//! A name is passed to ssh unchanged, so that ssh's configuration applies. A name is refused if ssh
//! could take it for an option, or a shell for a command (`ProxyCommand ... %h`).

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::io::bounded;

/// Largest list, bytes.
const LIMIT: u64 = 16 << 20;
/// Longest name, bytes. A domain name has at most 253; a user and a port are added to it.
const LONGEST: usize = 512;

/// The names in the given order, without repetition. `list` is a file, or `-` for the standard
/// input.
pub fn collect_hosts(named: &[String], list: Option<&Path>) -> Result<Vec<String>> {
    let mut hosts = Vec::new();
    for name in named {
        check(name).map_err(|why| wrong(name, why))?;
        hosts.push(name.clone());
    }
    if let Some(path) = list {
        let (source, text) = if path == Path::new("-") {
            ("stdin".to_owned(), stdin()?)
        } else {
            (path.display().to_string(), file(path)?)
        };
        hosts.extend(lines(&source, &text)?);
    }
    if hosts.is_empty() {
        return Err(Error::new("no host to query")
            .hint("name hosts, or give a list of them with --hosts FILE"));
    }
    let mut seen = HashSet::new();
    hosts.retain(|host| seen.insert(host.clone()));
    Ok(hosts)
}

/// One name a line; `#` begins a comment.
fn lines(source: &str, text: &str) -> Result<Vec<String>> {
    let mut hosts = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            check(line)
                .map_err(|why| wrong(line, why))
                .context(|| format!("{source}:{}", number + 1))?;
            hosts.push(line.to_owned());
        }
    }
    Ok(hosts)
}

fn file(path: &Path) -> Result<String> {
    let bytes = bounded::read(path, LIMIT).context(|| path.display().to_string())?;
    String::from_utf8(bytes).map_err(|_| Error::new(format!("{}: not UTF-8", path.display())))
}

fn stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .context(|| "stdin")?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::new(format!(
            "stdin: more than {LIMIT} bytes, the limit of a list of hosts"
        )));
    }
    String::from_utf8(bytes).map_err(|_| Error::new("stdin: not UTF-8"))
}

fn wrong(name: &str, why: &str) -> Error {
    let shown: String = name.chars().take(80).collect();
    Error::new(format!("{shown:?} is not a host: {why}"))
        .hint("write HOST, USER@HOST or ssh://USER@HOST:PORT, one per line")
}

fn check(name: &str) -> Result<(), &'static str> {
    // The characters that `valid_hostname` of ssh refuses since 9.6, here in the whole name.
    let harmful = |c: char| c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){}".contains(c);
    match name {
        "" => Err("it is empty"),
        name if name.len() > LONGEST => Err("it is too long"),
        name if name.starts_with('-') || name.contains("@-") => {
            Err("ssh would take it for an option")
        }
        name if name.chars().any(char::is_whitespace) => Err("it has a space"),
        name if name.chars().any(harmful) => Err("it has a character that is not allowed in names"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_name_per_line_and_removes_duplicates() {
        let list =
            "# the web\nweb1\n  root@web2  # spare\n\n\r\nssh://root@[fe80::1%eth0]:2222\nweb1\n";
        assert_eq!(
            lines("l", list).unwrap(),
            [
                "web1",
                "root@web2",
                "ssh://root@[fe80::1%eth0]:2222",
                "web1"
            ]
        );
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        std::fs::write(&path, list).unwrap();
        let hosts =
            collect_hosts(&["db1".to_owned(), "root@web2".to_owned()], Some(&path)).unwrap();
        assert_eq!(
            hosts,
            ["db1", "root@web2", "web1", "ssh://root@[fe80::1%eth0]:2222"]
        );
        std::fs::write(&path, b"\xff\n").unwrap();
        assert!(
            collect_hosts(&[], Some(&path))
                .unwrap_err()
                .message()
                .ends_with("not UTF-8")
        );
        std::fs::write(&path, "# none\n").unwrap();
        assert_eq!(
            collect_hosts(&[], Some(&path)).unwrap_err().message(),
            "no host to query"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(collect_hosts(&[], Some(&path)).is_err());
    }

    #[test]
    fn refuses_invalid_names_with_their_line() {
        for name in [
            "",
            "-oProxyCommand=id",
            "root@-x",
            "a b",
            "a\u{1b}[2J",
            "a;id",
            "$(id)",
            "`id`",
            "a|b",
            "a\u{a0}b",
            &"a".repeat(LONGEST + 1),
        ] {
            assert!(collect_hosts(&[name.to_owned()], None).is_err(), "{name:?}");
        }
        let error = lines("hosts", "a\n\nb c\n").unwrap_err();
        assert_eq!(
            error.message(),
            "hosts:3: \"b c\" is not a host: it has a space"
        );
        // The refused name is escaped.
        assert!(
            !collect_hosts(&["\u{1b}[31mx".to_owned()], None)
                .unwrap_err()
                .message()
                .contains('\u{1b}')
        );
    }
}
