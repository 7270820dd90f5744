//! `adamant reference`: docs/definition.md, generated from the keys of the definition
//! ([`crate::definition::keys`]) and the tables of the scrubbing rules.

use std::fmt::Write;

use super::documents::print_text;
use crate::definition::keys::SECTIONS;
use crate::error::Result;
use crate::rootfs::scrub::rules::RULES;
use crate::rootfs::scrub::secrets;
use crate::term::output::Output;

const HEAD: &str = "\
# The definition: image.toml

This page is generated from the types that read definitions, with `adamant reference >
docs/definition.md`. A test compares the two.

A definition is one TOML file. Paths of the build machine are relative to the definition. An unknown
key is an error with its line and column, and so is a value that has no effect. A *size* is a whole
number with K, M, G or T (powers of 1024). A *duration* is a whole number with s, m or h.

The smallest definition:

```toml
[image]
id = \"web\"
version = \"1.0.0\"

[[source]]
tar = \"root.tar\"
```
";

/// Prints the page.
pub fn print_reference(output: &Output) -> Result<u8> {
    print_text(&markdown(), output)
}

/// The page.
fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        page += &format!("\n## `{}`\n\n", section.title);
        page += &wrapped(&joined(section.doc), "");
        page += "\n| key | value | default |\n|---|---|---|\n";
        for key in section.keys {
            page += &format!("| `{}` | {} | {} |\n", key.name, key.shape, key.default);
        }
        page += "\n";
        for key in section.keys {
            page += &wrapped(&format!("- `{}`: {}", key.name, joined(key.doc)), "  ");
        }
    }
    add_scrubbing(&mut page);
    page
}

/// Wraps a paragraph at 100 columns. All lines but the first start with `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    const COLUMNS: usize = 100;
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines += &line;
            lines.push('\n');
            line = indent.to_owned();
        } else if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &line + "\n"
}

const SCRUBBING: &str = "
## Files that scrubbing removes

A rule applies only to the paths that it lists, not to other names (hard links) of the same file.
`[scrub] keep` excludes paths from all rules.

| rule | paths | reason |
|---|---|---|
";

const SERVERS: &str = "
Five more rules change files:

- `machine-id` empties /etc/machine-id.
- `database-numbers` makes Berkeley DB files (`/etc/**/*.db` and /etc/sasldb2) equal in every build:
  it derives their random number from the path, clears their free space, and sets the time that
  postfix writes into a map to the image's epoch.
- `password-dates` sets dates in /etc/shadow that are newer than the image's epoch to the epoch.
- `keystore-times` does the same in Java's list of certificate authorities.
- `newer-times` does the same for modification times of files.

Some packages create a database at installation: PostgreSQL, MariaDB, slapd, and etckeeper with its
repository of /etc. Its bytes differ in each build, so it is an error that names the directory.
Remove the directory with `absent`, or list it in `keep`.

Some services do not start, or lack a function, without a file that scrubbing removes. Each server
can create its own:
";

const REFUSED: &str = "
## Files that are refused as secrets

A secret in the image is an error that names its path. Private keys, cloud credentials and URLs with
passwords are searched for in every file, as text and in DER, and in extended attributes. The other
rules read only the paths in this table, and most of them search for patterns such as `password =`
with a value. Pass secrets to servers as systemd credentials, or store them on a volume.

| rule | paths |
|---|---|
";

/// Adds the sections about scrubbing, from the tables of its rules.
fn add_scrubbing(page: &mut String) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_definition_md_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/definition.md");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap_or_default() == markdown(),
            "docs/definition.md is out of date: run `adamant reference > docs/definition.md`"
        );
    }
}
