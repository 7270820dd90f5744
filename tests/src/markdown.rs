//! Code blocks of Markdown pages, with the mark that says how a test runs each.
//!
//! A block is fenced and names its language. `sh` is a block of commands; the languages in [`DATA`]
//! are shown, not run. An HTML comment in the last line before the fence, other than an empty one,
//! marks a block of commands:
//!
//! - `<!-- elsewhere: REASON -->`: needs another machine or an account, and is not run.
//! - `<!-- fails -->`: the last command ends with another exit code than 0.
//! - `<!-- interactive: until TEXT -->`: shows a machine's console; Ctrl-a x is typed once TEXT is
//!   there.

use std::fmt;

/// Languages of blocks that hold no commands.
pub const DATA: [&str; 5] = ["toml", "text", "json", "ini", "c"];

/// How a block of commands is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// As it is: every command must succeed.
    Succeeds,
    /// The last command must fail.
    Fails,
    /// Ctrl-a x is typed when this text is on the console.
    Interactive(String),
    /// Not here.
    Elsewhere,
}

/// A block of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The page's line with the first command, from 1.
    pub line: usize,
    /// How it is run.
    pub mark: Mark,
    /// Its text.
    pub commands: String,
}

/// A page that a test can't execute, and the line.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// What is wrong, and what to write.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// The blocks of commands of a page, in order.
pub fn blocks(page: &str) -> Result<Vec<Block>, Fault> {
    let lines: Vec<&str> = page.lines().collect();
    let mut found = Vec::new();
    // The line before this one that is not empty, and whether it is the one directly before.
    let mut before = "";
    let mut empty = true;
    let mut indented_text = false;
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let number = at + 1;
        let text = line.trim_start();
        if let Some(language) = text.strip_prefix("```") {
            let indent = line.len() - text.len();
            let end = (at + 1..lines.len()).find(|&end| lines[end].trim() == "```");
            let end = end.ok_or_else(|| fault(number, "this block does not end"))?;
            let inside: Vec<&str> = lines[at + 1..end]
                .iter()
                .map(|line| line.get(indent..).unwrap_or_else(|| line.trim_start()))
                .collect();
            let language = language.trim();
            let mark = mark(before, number)?;
            match language {
                "sh" => found.push(Block {
                    line: number + 1,
                    mark: mark.unwrap_or(Mark::Succeeds),
                    commands: inside.join("\n") + "\n",
                }),
                _ if DATA.contains(&language) && mark.is_none() => {}
                _ if DATA.contains(&language) => {
                    return Err(fault(number, "only blocks of commands are marked"));
                }
                "" => {
                    return Err(fault(
                        number,
                        "a block needs its language: sh for commands, text for output",
                    ));
                }
                _ => {
                    return Err(fault(
                        number,
                        format!(
                            "{language} is no language that the test knows: sh, {}",
                            DATA.join(", ")
                        ),
                    ));
                }
            }
            (at, before, empty, indented_text) = (end + 1, "", false, false);
            continue;
        }
        let list = |line: &str| {
            let text = line.trim_start();
            text.starts_with("- ")
                || text.starts_with("* ")
                || text
                    .split_once(". ")
                    .is_some_and(|(n, _)| n.bytes().all(|b| b.is_ascii_digit()))
        };
        match text {
            "" => empty = true,
            // Below an item of a list an indented line is its text.
            _ if line.starts_with("    ") && empty && !indented_text && !list(line) => {
                return Err(fault(
                    number,
                    "write commands and output as a fenced block with its language",
                ));
            }
            _ => {
                // A mark belongs to the block right below it.
                if marks(before) {
                    return Err(fault(number, "the mark above belongs to no block"));
                }
                indented_text = list(line) || (indented_text && line.starts_with(' '));
                (before, empty) = (text.trim_end(), false);
            }
        }
        at += 1;
    }
    match marks(before) {
        true => Err(fault(lines.len(), "the last mark belongs to no block")),
        false => Ok(found),
    }
}

fn fault(line: usize, what: impl Into<String>) -> Fault {
    Fault {
        line,
        what: what.into(),
    }
}

fn comment(line: &str) -> Option<&str> {
    Some(line.strip_prefix("<!--")?.strip_suffix("-->")?.trim())
}

/// Whether the line is a comment that only a block of commands has.
fn marks(line: &str) -> bool {
    comment(line).is_some_and(|text| {
        ["elsewhere", "fails", "interactive"]
            .iter()
            .any(|mark| text.starts_with(mark))
    })
}

/// What the line before a block says; `None` when it says nothing about it.
fn mark(line: &str, number: usize) -> Result<Option<Mark>, Fault> {
    let Some(text) = comment(line) else {
        return Ok(None);
    };
    match text
        .split_once(':')
        .map_or((text, ""), |(mark, rest)| (mark, rest.trim()))
    {
        ("elsewhere", "") => Err(fault(
            number,
            "elsewhere needs its reason: <!-- elsewhere: needs an AWS account -->",
        )),
        ("elsewhere", _) => Ok(Some(Mark::Elsewhere)),
        ("fails", "") => Ok(Some(Mark::Fails)),
        ("interactive", rest) => match rest.strip_prefix("until ").map(str::trim) {
            Some(text) if !text.is_empty() && !text.contains('\'') => {
                Ok(Some(Mark::Interactive(text.to_owned())))
            }
            _ => Err(fault(number, "write <!-- interactive: until TEXT -->")),
        },
        _ => Err(fault(
            number,
            format!("{text:?} is no mark: elsewhere: REASON, fails, interactive: until TEXT"),
        )),
    }
}

/// A bash script that runs the blocks in order, in one shell, and prints the page and the line of
/// each before it.
pub fn script(page: &str, blocks: &[Block]) -> String {
    let mut script = String::new();
    for block in blocks {
        let name = format!("{page}:{}", block.line);
        let commands = &block.commands;
        script += &match &block.mark {
            Mark::Elsewhere => format!("echo '=== {name}: not run here'\n"),
            Mark::Succeeds => format!("echo '=== {name}'\n{commands}"),
            // The shell's `set -e` holds inside of ( ) only where its exit code is not asked for
            // directly.
            Mark::Fails => format!(
                "echo '=== {name}: must fail'\nset +e\n( set -e\n{commands})\ncode=$?\nset -e\n[ $code != 0 ] || {{ echo '{name}: did not fail'; exit 1; }}\n"
            ),
            // The file `running` exists as long as the commands run, so that the process that types
            // for them ends with them.
            Mark::Interactive(text) => format!(
                "echo '=== {name}: until {text}, then Ctrl-a x'\nconsole=$(mktemp) running=$(mktemp)\n\
                 ( trap 'rm -f \"$running\"' EXIT\n{commands}) < <(\n\
                 while [ -e \"$running\" ] && ! grep -qF '{text}' \"$console\"; do sleep 1; done; printf '\\001x'; while [ -e \"$running\" ]; do sleep 1; done\n\
                 ) 2>&1 | tee \"$console\"\n\
                 grep -qF '{text}' \"$console\" || {{ echo '{name}: {text} was never on the console'; exit 1; }}\nrm \"$console\"\n"
            ),
        };
    }
    script
}

/// Replaces the text between two marker lines of a page; `None` if it does not have both.
pub fn replace_between(page: &str, begin: &str, end: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(&format!("{begin}\n"))?;
    let at = rest.find(&format!("{end}\n"))?;
    Some(format!("{before}{begin}\n\n{text}\n{}", &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks_of(page: &str) -> Vec<Mark> {
        blocks(page)
            .unwrap()
            .into_iter()
            .map(|block| block.mark)
            .collect()
    }

    #[test]
    fn blocks_are_found_with_their_lines_and_marks() {
        let page = "# A\n\n```sh\nls\n```\n\n<!-- elsewhere: needs an account -->\n\n```sh\naws\n```\n\n<!-- fails -->\n```sh\nfalse\n```\n\n\
                    <!-- interactive: until login: -->\n```sh\nboot\n```\n\n```toml\n[image]\n```\n";
        let found = blocks(page).unwrap();
        assert_eq!(
            found.iter().map(|block| block.line).collect::<Vec<_>>(),
            [4, 10, 15, 20]
        );
        assert_eq!(found[0].commands, "ls\n");
        assert_eq!(
            marks_of(page),
            [
                Mark::Succeeds,
                Mark::Elsewhere,
                Mark::Fails,
                Mark::Interactive("login:".to_owned())
            ]
        );
    }

    #[test]
    fn a_block_in_a_list_loses_its_indent() {
        assert_eq!(
            blocks("1. first\n\n   ```sh\n   ls\n     -l\n   ```\n").unwrap()[0].commands,
            "ls\n  -l\n"
        );
    }

    #[test]
    fn what_could_be_forgotten_is_a_fault() {
        for (page, line) in [
            ("```\nls\n```\n", 1),
            ("```bash\nls\n```\n", 1),
            ("```sh\nls\n", 1),
            ("a\n\n    ls\n", 3),
            ("<!-- elsewhere -->\n```sh\nls\n```\n", 2),
            ("<!-- elswhere: typing -->\n```sh\nls\n```\n", 2),
            ("<!-- interactive: -->\n```sh\nls\n```\n", 2),
            ("<!-- fails -->\n\ntext\n\n```sh\nls\n```\n", 3),
            ("<!-- fails -->\n```toml\n[image]\n```\n", 2),
            ("<!-- elsewhere: needs an account -->\n", 1),
        ] {
            assert_eq!(blocks(page).unwrap_err().line, line, "{page}");
        }
    }

    #[test]
    fn text_below_an_item_of_a_list_is_no_block() {
        assert_eq!(
            blocks("- item\n\n    more of it\n\n    and more\n").unwrap(),
            []
        );
        assert_eq!(
            blocks("- item\n\n    more\n\ntext\n\n    ls\n")
                .unwrap_err()
                .line,
            7
        );
    }

    fn bash(page: &str) -> bool {
        let script = format!(
            "set -euo pipefail\n{}",
            script("PAGE", &blocks(page).unwrap())
        );
        std::process::Command::new("bash")
            .args(["-c", &script])
            .output()
            .unwrap()
            .status
            .success()
    }

    #[test]
    fn blocks_share_one_shell_and_the_first_failure_ends_it() {
        assert!(bash("```sh\nx=1\n```\n\n```sh\n[ $x = 1 ]\n```\n"));
        assert!(!bash("```sh\nfalse\ntrue\n```\n"));
        assert!(!bash("```sh\nfalse\n```\n\n```sh\ntrue\n```\n"));
        assert!(bash(
            "<!-- elsewhere: no such program -->\n```sh\nno-such-program\n```\n"
        ));
    }

    #[test]
    fn a_block_that_should_fail_must_fail() {
        assert!(bash("<!-- fails -->\n```sh\ntrue\nfalse\n```\n"));
        assert!(!bash("<!-- fails -->\n```sh\ntrue\n```\n"));
    }

    #[test]
    fn an_interactive_block_gets_its_keys_when_the_text_is_there() {
        let reads = "read -r -n 2 keys; [ \"$keys\" = $'\\x01x' ]";
        assert!(bash(&format!(
            "<!-- interactive: until login: -->\n```sh\necho 'host login:'; {reads}\n```\n"
        )));
        assert!(!bash(
            "<!-- interactive: until login: -->\n```sh\necho nothing\n```\n"
        ));
    }
}
