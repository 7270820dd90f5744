//! `docs/definition.md`, generated from [`super::keys`].

use std::fmt::Write;

use super::keys::SECTIONS;
use crate::rootfs::scrub::rules::RULES;
use crate::rootfs::scrub::secrets;

const HEAD: &str = "\
# The definition: image.toml

This page is generated from the types that read definitions (`adamant reference > docs/definition.md`); a test compares the two.

A definition is one TOML file. Paths in it are relative to it. A key that is not listed here is an error, with its line and column, and so is
everything else that could be a mistake. A *size* is a whole number with K, M, G or T (powers of 1024), a *duration* one with s, m or h.

The smallest one:

```toml
[image]
id = \"web\"
version = \"1.0.0\"

[[source]]
tar = \"root.tar\"
```
";

/// The whole page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## `{}`\n\n{}\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
            section.title,
            joined(section.doc)
        );
        for key in section.keys {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                key.name,
                key.shape,
                key.default,
                joined(key.doc).replace('|', "\\|")
            );
        }
    }
    scrubbing(&mut page);
    page
}

const SCRUBBING: &str = "
## What scrubbing removes

A rule acts on the names that it lists, and on no other name of the same file. `[scrub] keep` excepts paths.

| rule | paths | why |
|---|---|---|
";

const SERVERS: &str = "
Five more rules change files: `machine-id` empties /etc/machine-id; `database-numbers` replaces the random number in Berkeley DB files (`/etc/**/*.db`
and /etc/sasldb2) with one made of the path, clears their free space, and sets the time that postfix writes into a map to the image's epoch;
`password-dates` (in /etc/shadow), `keystore-times` (in Java's list of certificate authorities) and `newer-times` set what is newer than the image's
epoch to it.

A database that PostgreSQL, MariaDB or slapd makes at its installation, and a repository that etckeeper makes of /etc, is an error that names its directory:
its bytes are others in each build. Leave it out with `absent`, or list it in `keep`.

Some services do not start, or lack a function, without a file that scrubbing removes. A server gets its own like this:
";

const REFUSED: &str = "
## What is refused as a secret

An image with a secret is an error that names each path. Private keys are searched for in every file, as text and in DER, and in extended attributes,
together with cloud credentials and URLs with passwords. The other rules look at these paths alone, and most of them for words such as `password =`
with a value behind them. Hand secrets to servers as systemd credentials, or put them on a volume.

| rule | paths |
|---|---|
";

/// What scrubbing does, from the tables that it works by.
fn scrubbing(page: &mut String) {
    let list = |paths: &[&str]| {
        paths
            .iter()
            .map(|path| format!("`{path}`"))
            .collect::<Vec<_>>()
            .join(" ")
            .replace('|', "\\|")
    };
    page.push_str(SCRUBBING);
    for rule in RULES {
        let _ = writeln!(
            page,
            "| {} | {} | {} |",
            rule.name,
            list(rule.paths),
            rule.reason
        );
    }
    page.push_str(SERVERS);
    for (rule, server) in RULES.iter().filter_map(|rule| Some((rule, rule.server?))) {
        let _ = writeln!(
            page,
            "\n- {} ({}): {}.",
            list(rule.paths),
            rule.name,
            server.replace('\n', " ")
        );
    }
    page.push_str(REFUSED);
    for (name, paths) in secrets::paths_by_name() {
        let _ = writeln!(page, "| {name} | {} |", list(&paths));
    }
}

fn joined(lines: &[&str]) -> String {
    lines
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ")
}
