//! What a host said, read as that of somebody who may be hostile: bounded, and with nothing in it
//! that steers a terminal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::io::process::Captured;

/// Longest text of a host's that is kept, characters.
const LONGEST: usize = 300;
/// Characters of a host's first line that a reason quotes.
const QUOTED: usize = 80;
/// Lines that may be where an answer starts.
const CANDIDATES: usize = 1000;
/// Classes of differences, the most important first; a newer agent may know more.
const CLASSES: [&str; 8] = [
    "verity",
    "cmdline",
    "guard",
    "mounts",
    "sysctls",
    "executables",
    "units",
    "sockets",
];

/// What came of asking a host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum HostOutcome {
    /// It answered, and differs.
    Drift(DriftAnswer),
    /// There is no answer.
    NotAsked {
        /// Why: a clause.
        reason: String,
    },
    /// It answered, and nothing differs.
    NoDrift(DriftAnswer),
}

/// What `adamant-agent drift --json` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DriftAnswer {
    /// IMAGE_ID; agents from before this command do not tell.
    #[serde(default)]
    pub image_id: Option<String>,
    /// IMAGE_VERSION.
    #[serde(default)]
    pub image_version: Option<String>,
    /// As the kernel has it, 64 hexadecimal digits; none where the root is not on the verified
    /// device.
    #[serde(default)]
    pub root_hash: Option<String>,
    /// All differences, the most important first.
    pub drift: Vec<DriftItem>,
    /// How often the guard refused, by hook.
    #[serde(default)]
    pub denials: BTreeMap<String, u64>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftItem {
    /// What kind it is of.
    pub class: String,
    /// What it is about.
    pub what: String,
    /// How it is.
    pub is: String,
    /// How it should be.
    pub should: String,
}

impl HostOutcome {
    /// Of what ssh came back with.
    pub fn from_ssh(said: &Captured) -> HostOutcome {
        match read(said) {
            Ok(answer) if answer.drift.is_empty() => HostOutcome::NoDrift(answer),
            Ok(answer) => HostOutcome::Drift(answer),
            Err(reason) => HostOutcome::NotAsked { reason },
        }
    }

    /// Its answer.
    pub fn answer(&self) -> Option<&DriftAnswer> {
        match self {
            HostOutcome::Drift(answer) | HostOutcome::NoDrift(answer) => Some(answer),
            HostOutcome::NotAsked { .. } => None,
        }
    }

    /// For sorting: what a person must see first.
    pub fn rank(&self) -> (usize, usize, usize) {
        match self {
            HostOutcome::Drift(answer) => (
                0,
                answer
                    .drift
                    .iter()
                    .map(|one| rank(&one.class))
                    .min()
                    .unwrap_or(CLASSES.len()),
                usize::MAX - answer.drift.len(),
            ),
            HostOutcome::NotAsked { .. } => (1, 0, 0),
            HostOutcome::NoDrift(_) => (2, 0, 0),
        }
    }
}

fn rank(class: &str) -> usize {
    CLASSES
        .iter()
        .position(|known| *known == class)
        .unwrap_or(CLASSES.len())
}

fn read(said: &Captured) -> Result<DriftAnswer, String> {
    let code = said.status.code();
    match code {
        // As ssh says it of itself; no command of ours ends so.
        Some(255) => {
            return Err(last_line(&said.err)
                .unwrap_or_else(|| "ssh failed, and does not say why".to_owned()));
        }
        // The agent's own code for words that it does not know.
        Some(2) => {
            return Err(
                "its adamant-agent does not know `drift`: the image is older than that".to_owned(),
            );
        }
        Some(126 | 127) => return Err(why("it has no adamant-agent that runs", said)),
        Some(0 | 1) => {}
        Some(code) => {
            return Err(why(
                &format!("adamant-agent ended with exit code {code}"),
                said,
            ));
        }
        None => return Err(why("ssh was killed", said)),
    }
    if said.out.iter().all(u8::is_ascii_whitespace) {
        return Err(last_line(&said.err).unwrap_or_else(|| "it said nothing".to_owned()));
    }
    let mut answer = find_answer(&said.out)?;
    if (code == Some(0)) != answer.drift.is_empty() {
        return Err("it contradicts itself: its list of differences and its exit code".to_owned());
    }
    answer.clean()?;
    Ok(answer)
}

/// The agent's answer, also behind lines that the host's shell prints before it, and before lines
/// that come after it.
fn find_answer(out: &[u8]) -> Result<DriftAnswer, String> {
    let starts = std::iter::once(0).chain(
        out.iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at + 1),
    );
    let mut first = None;
    for start in starts
        .filter(|start| out[*start..].trim_ascii_start().starts_with(b"{"))
        .take(CANDIDATES)
    {
        let mut answers =
            serde_json::Deserializer::from_slice(&out[start..]).into_iter::<DriftAnswer>();
        match answers.next() {
            Some(Ok(answer)) => {
                let rest = &out[start + answers.byte_offset()..];
                if rest.is_empty() || rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
                    return Ok(answer);
                }
                first.get_or_insert_with(|| "more follows it on its line".to_owned());
            }
            Some(Err(error)) => {
                first.get_or_insert_with(|| printable(&error.to_string()));
            }
            None => {}
        }
    }
    let text = String::from_utf8_lossy(out);
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let quoted: String = printable(line).chars().take(QUOTED).collect();
    Err(match first.filter(|_| line.starts_with('{')) {
        Some(error) => format!(
            "not an answer of adamant-agent's: {error}; it begins with {quoted:?}: ask it by hand with `adamant-agent drift --json`"
        ),
        None => format!(
            "not an answer of adamant-agent's: it says {quoted:?}: let its shell's start files print nothing without a terminal"
        ),
    })
}

fn why(what: &str, said: &Captured) -> String {
    last_line(&said.err).map_or_else(|| what.to_owned(), |line| format!("{what}: {line}"))
}

/// Where a program says why it ended.
fn last_line(err: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(err);
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .map(printable)
}

impl DriftAnswer {
    fn clean(&mut self) -> Result<(), String> {
        if let Some(hash) = &mut self.root_hash {
            if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err("not an answer of adamant-agent's: root_hash is none".to_owned());
            }
            hash.make_ascii_lowercase();
        }
        for text in [&mut self.image_id, &mut self.image_version]
            .into_iter()
            .flatten()
        {
            *text = printable(text);
        }
        for DriftItem {
            class,
            what,
            is,
            should,
        } in &mut self.drift
        {
            for text in [class, what, is, should] {
                *text = printable(text);
            }
        }
        self.drift.sort_by_key(|one| rank(&one.class));
        self.denials = std::mem::take(&mut self.denials)
            .into_iter()
            .map(|(hook, count)| (printable(&hook), count))
            .collect();
        Ok(())
    }

    /// How many differences there are of each class, the most important first.
    pub fn classes(&self) -> Vec<(&str, usize)> {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for one in &self.drift {
            match counts.iter_mut().find(|(class, _)| *class == one.class) {
                Some((_, count)) => *count += 1,
                None => counts.push((&one.class, 1)),
            }
        }
        counts
    }

    /// All denials together.
    pub fn denied(&self) -> u64 {
        self.denials
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Text for a terminal and for whoever copies from it: one line, of bounded length, without what
/// moves a cursor or turns the direction of writing.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    let mut all = text.chars();
    for c in all.by_ref().take(LONGEST) {
        // Bidirectional controls, invisible ones, and separators of lines (Unicode 16,
        // Bidi_Control, zero width, Zl and Zp).
        let turns = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || turns {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
    }
    if all.next().is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn said(code: i32, out: &str, err: &str) -> HostOutcome {
        HostOutcome::from_ssh(&Captured {
            status: ExitStatus::from_raw(code << 8),
            out: out.into(),
            err: err.into(),
        })
    }

    fn reason(code: i32, out: &str, err: &str) -> String {
        match said(code, out, err) {
            HostOutcome::NotAsked { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    const ONE: &str = r#"{"drift":[{"class":"units","what":"a","is":"there","should":"absent"},{"class":"verity","what":"b","is":"c","should":"d"}],"denials":{"x":2}}"#;

    #[test]
    fn an_answer_is_read_whichever_version_of_the_agent_gave_it() {
        let HostOutcome::Drift(answer) = said(1, ONE, "") else {
            panic!()
        };
        assert_eq!(
            (
                answer.drift[0].class.as_str(),
                &answer.image_id,
                answer.denied()
            ),
            ("verity", &None, 2)
        );
        assert_eq!(answer.classes(), [("verity", 1), ("units", 1)]);
        let hash = "AB".repeat(32);
        let text = format!(
            r#"{{"image_id":"web","image_version":"1","root_hash":"{hash}","drift":[],"denials":{{}},"new":[1]}}"#
        );
        let HostOutcome::NoDrift(answer) = said(0, &text, "Welcome\n") else {
            panic!()
        };
        assert_eq!(
            (answer.image_id.as_deref(), answer.root_hash),
            (Some("web"), Some("ab".repeat(32)))
        );
    }

    #[test]
    fn an_answer_is_found_among_the_lines_of_the_hosts_shell() {
        for (before, after) in [
            ("*** web1 ***\nloading profile\n", "\n"),
            ("{ not ours }\n{\n", ""),
            ("\r\n", "\r\nlogout\n"),
            ("\u{1b}[2J\n", "\n\n"),
        ] {
            let out = format!("{before}{ONE}{after}");
            assert!(
                matches!(said(1, &out, ""), HostOutcome::Drift(ref answer) if answer.drift.len() == 2),
                "{out:?}"
            );
        }
        let pretty =
            serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(ONE).unwrap())
                .unwrap();
        assert!(matches!(
            said(1, &format!("motd\n{pretty}\n"), ""),
            HostOutcome::Drift(_)
        ));
        let reason = reason(0, "\n*** web1 - authorised use only ***\nmore\n", "");
        assert!(reason.contains("it says \"*** web1 - authorised use only ***\": let its shell's start files print nothing"), "{reason}");
    }

    #[test]
    fn no_answer_has_a_reason() {
        assert_eq!(
            reason(255, "", "@@@\nroot@a: Permission denied (publickey).\r\n"),
            "root@a: Permission denied (publickey)."
        );
        assert_eq!(reason(255, ONE, ""), "ssh failed, and does not say why");
        assert_eq!(
            reason(127, "", "sh: 1: adamant-agent: not found"),
            "it has no adamant-agent that runs: sh: 1: adamant-agent: not found"
        );
        assert_eq!(
            reason(1, "", "adamant: drift: run it as root\n"),
            "adamant: drift: run it as root"
        );
        assert_eq!(reason(0, " \n", ""), "it said nothing");
        assert!(reason(2, "", "help").contains("does not know `drift`"));
        assert_eq!(reason(70, "", ""), "adamant-agent ended with exit code 70");
        for garbage in [
            "{",
            "[]",
            "{}",
            "\u{1b}[2J",
            r#"{"drift":[1]}"#,
            r#"{"drift":[]} x"#,
            &"[".repeat(100_000),
        ] {
            assert!(
                reason(0, garbage, "").starts_with("not an answer"),
                "{garbage:.40}"
            );
        }
        assert!(reason(0, r#"{"drift":[],"root_hash":"ab"}"#, "").contains("root_hash"));
        assert!(
            reason(0, ONE, "").contains("contradicts")
                && reason(1, r#"{"drift":[]}"#, "").contains("contradicts")
        );
    }

    #[test]
    fn nothing_that_a_host_says_steers_a_terminal() {
        assert_eq!(
            printable("a\u{1b}]0;x\u{7}\n\u{9b}\u{202e}ü"),
            r"a\u{1b}]0;x\u{7}\u{a}\u{9b}\u{202e}ü"
        );
        assert_eq!(printable(&"x".repeat(1000)).chars().count(), LONGEST + 1);
        let hostile = ONE
            .replace("\"units\"", r#""\u001b[2J""#)
            .replace("\"a\"", r#""\u009bA""#);
        let HostOutcome::Drift(answer) = said(1, &hostile, "") else {
            panic!()
        };
        assert!(
            !format!("{}{}", answer.drift[1].class, answer.drift[1].what)
                .chars()
                .any(char::is_control),
            "{answer:?}"
        );
        assert!(
            !reason(255, "", "\u{1b}[2Jbye\u{9b}")
                .chars()
                .any(char::is_control)
        );
    }

    #[test]
    fn the_worst_comes_first() {
        let ranks = [
            said(1, ONE, ""),
            said(1, &ONE.replace("verity", "mounts"), ""),
            said(255, "", ""),
            said(0, r#"{"drift":[]}"#, ""),
        ]
        .map(|one| one.rank());
        assert!(ranks.is_sorted(), "{ranks:?}");
    }
}
