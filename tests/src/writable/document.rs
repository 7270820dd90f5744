//! The tables of `docs/writable.md`.

use std::error::Error;
use std::fmt::Write;
use std::fs;

use crate::markdown;
use crate::writable;
use crate::writable::found::{self, Found};
use crate::writable::groups::{Group, Groups};

/// Width of the document's lines.
const WIDTH: usize = 100;
/// The line before the tables.
pub const BEGIN: &str = "<!-- writable:begin -->";
/// The line behind the tables.
pub const END: &str = "<!-- writable:end -->";

/// The document with tables that are made from the files now.
pub fn current() -> Result<String, Box<dyn Error>> {
    let directory = writable::directory();
    let groups = Groups::load(&directory)?;
    let found = found::parse(&fs::read_to_string(directory.join("found"))?)?;
    let page = fs::read_to_string(writable::document())?;
    markdown::replace_between(&page, BEGIN, END, &tables(&groups, &found))
        .ok_or_else(|| format!("docs/writable.md has no lines {BEGIN} and {END}").into())
}

/// The tables and reasons as Markdown: for each area a table of its groups, and for each group a
/// section.
pub fn tables(groups: &Groups, found: &[Found]) -> String {
    let mut text = String::new();
    for (at_area, area) in groups.areas.iter().enumerate() {
        let files = |at_group| -> usize {
            (found.iter())
                .filter(|file| groups.group_of(&file.path) == Some((at_area, at_group)))
                .map(|file| file.count)
                .sum()
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "## {}\n\n| group | files | verdict |\n|---|---|---|\n",
            area.name
        );
        for (at_group, group) in area.group.iter().enumerate() {
            let (name, verdict) = (&group.name, group.verdict.name());
            let anchor = anchor(name);
            let files = files(at_group);
            let _ = writeln!(text, "| [{name}](#{anchor}) | {files} | {verdict} |");
        }
        text.push('\n');
        for group in &area.group {
            write_group(&mut text, group);
        }
    }
    text.trim_end().to_owned() + "\n"
}

fn write_group(text: &mut String, group: &Group) {
    let _ = write!(text, "### {}\n\n", group.name);
    let verdict = capitalized(group.verdict.name());
    let by = (group.by.as_ref()).map_or_else(String::new, |by| format!(" by {by}"));
    let reason = format!("**{verdict}**{by}. {}", group.reason.trim());
    for paragraph in reason.split("\n\n") {
        *text += &wrapped(paragraph, &[' ', '\n']);
        text.push('\n');
    }
    *text += "```text\n";
    for path in &group.paths {
        *text += &wrapped_path(path);
    }
    *text += "```\n\n";
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|char| match char {
            ' ' => Some('-'),
            char if char.is_alphanumeric() || "-_".contains(char) => Some(char),
            _ => None,
        })
        .collect()
}

/// A paragraph in lines of the document's width.
fn wrapped(text: &str, separators: &[char]) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(separators).filter(|word| !word.is_empty()) {
        if width > 0 && width + 1 + word.len() > WIDTH {
            lines.push('\n');
            width = 0;
        }
        if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines += word;
        width += word.len();
    }
    lines + "\n"
}

/// A pattern, with a break behind a comma where a line would be too long.
fn wrapped_path(path: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for part in path.split_inclusive(',') {
        if width > 0 && width + part.len() > WIDTH {
            lines += "\n    ";
            width = 4;
        }
        lines += part;
        width += part.len();
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writable::found::parse;

    #[test]
    fn writes_a_table_and_a_section_for_each_group() {
        let groups = Groups::parse(
            "[[area]]\nname = \"/proc\"\n[[area.group]]\nname = \"When the kernel panics\"\nverdict = \"refused\"\nby = \"the guard\"\nreason = \"It restarts.\"\npaths = [\"/proc/{a,b}\"]\n",
        )
        .unwrap();
        let found = parse("EPERM\tf\t2\t/proc/a\nEPERM\tf\t3\t/proc/b\nentries\t9\n").unwrap();
        assert_eq!(
            tables(&groups, &found),
            "## /proc\n\n| group | files | verdict |\n|---|---|---|\n\
             | [When the kernel panics](#when-the-kernel-panics) | 5 | refused |\n\n\
             ### When the kernel panics\n\n**Refused** by the guard. It restarts.\n\n```text\n/proc/{a,b}\n```\n"
        );
    }

    #[test]
    fn long_lines_are_wrapped() {
        let text = "word ".repeat(40);
        assert!(
            wrapped(&text, &[' '])
                .lines()
                .all(|line| line.len() <= WIDTH)
        );
        let path = format!("/proc/{{{}}}", ["name"; 40].join(","));
        let lines = wrapped_path(&path);
        assert!(lines.lines().all(|line| line.len() <= WIDTH), "{lines}");
        assert_eq!(lines.replace("\n    ", ""), format!("{path}\n"));
    }
}
