//! `docs/definition.md`, generated from [`super::keys`].

use std::fmt::Write;

use super::keys::SECTIONS;

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
        let _ = write!(page, "\n## `{}`\n\n{}\n\n| key | value | default | meaning |\n|---|---|---|---|\n", section.title, joined(section.doc));
        for key in section.keys {
            let _ = writeln!(page, "| `{}` | {} | {} | {} |", key.name, key.shape, key.default, joined(key.doc).replace('|', "\\|"));
        }
    }
    page
}

fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
