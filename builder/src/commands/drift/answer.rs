//! A host's answer. It is hostile input: its size is bounded, and text from it can't control a
//! terminal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::nonce::Nonce;
use crate::error::json_reason;
use crate::io::process::Captured;

/// Longest text of a host, characters. The rest is cut off.
const LONGEST: usize = 300;
/// Characters of a host's first line that an error quotes.
const QUOTED: usize = 80;
/// Number of lines that are tried as the start of an answer.
const CANDIDATES: usize = 1000;
/// Classes of differences, the most important first. A newer agent may have more.
const CLASSES: [&str; 10] = [
    "verity",
    "cmdline",
    "guard",
    "services",
    "mounts",
    "sysctls",
    "executables",
    "instructions",
    "units",
    "sockets",
];

/// Result of a query to a host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum HostOutcome {
    /// The host differs from its image.
    Drift(DriftAnswer),
    /// The host gave no answer.
    NotAsked {
        /// The reason.
        reason: String,
    },
    /// The host does not differ from its image.
    NoDrift(DriftAnswer),
}

/// The output of `adamant-agent drift --json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DriftAnswer {
    /// IMAGE_ID; older agents do not report it.
    #[serde(default)]
    pub image_id: Option<String>,
    /// IMAGE_VERSION.
    #[serde(default)]
    pub image_version: Option<String>,
    /// Root hash in the kernel, 64 hexadecimal digits; `None` if the root is not on the verified
    /// device.
    #[serde(default)]
    pub root_hash: Option<String>,
    /// The nonce of the question.
    #[serde(default, skip_serializing)]
    pub nonce: Option<String>,
    /// The differences, the most important first.
    pub drift: Vec<DriftItem>,
    /// Number of the guard's denials by hook.
    #[serde(default)]
    pub denials: BTreeMap<String, u64>,
}

/// A difference of a host from its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftItem {
    /// Class, for example `mounts`.
    pub class: String,
    /// The object, for example a path.
    pub what: String,
    /// Actual state.
    pub is: String,
    /// Expected state.
    pub should: String,
}

impl HostOutcome {
    /// Interprets the output and the exit status of ssh.
    pub fn from_ssh(said: &Captured, nonce: &Nonce) -> HostOutcome {
        match read(said, nonce) {
            Ok(answer) if answer.drift.is_empty() => HostOutcome::NoDrift(answer),
            Ok(answer) => HostOutcome::Drift(answer),
            Err(reason) => HostOutcome::NotAsked { reason },
        }
    }

    /// The host's answer, if it gave one.
    pub fn answer(&self) -> Option<&DriftAnswer> {
        match self {
            HostOutcome::Drift(answer) | HostOutcome::NoDrift(answer) => Some(answer),
            HostOutcome::NotAsked { .. } => None,
        }
    }

    /// Sort key: drift first, the most important class first, then hosts without an answer.
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

fn read(said: &Captured, nonce: &Nonce) -> Result<DriftAnswer, String> {
    let code = said.status.code();
    match code {
        // ssh's own errors. The agent never ends with this code.
        Some(255) => {
            return Err(
                last_line(&said.err).unwrap_or_else(|| "ssh failed without a message".to_owned())
            );
        }
        // The agent's exit code for unknown arguments.
        Some(2) => {
            return Err(
                "its adamant-agent does not know `drift --nonce`: the image is too old".to_owned(),
            );
        }
        Some(126 | 127) => return Err(why("it can't run adamant-agent", said)),
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
        return Err(last_line(&said.err).unwrap_or_else(|| "no output".to_owned()));
    }
    let mut answer = find_answer(&said.out)?;
    if (code == Some(0)) != answer.drift.is_empty() {
        return Err("its list of differences contradicts its exit code".to_owned());
    }
    if answer.nonce.as_deref() != Some(nonce.as_str()) {
        return Err("its answer does not have the nonce of this question: it is an old answer, or a forced command answers. Ask it by hand with `adamant-agent drift --json`".to_owned());
    }
    answer.clean()?;
    Ok(answer)
}

/// Finds the agent's answer in the output, also if the host's shell prints lines before or after
/// it.
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
                first.get_or_insert_with(|| "other text follows it on the same line".to_owned());
            }
            Some(Err(error)) => {
                first.get_or_insert_with(|| printable(&json_reason(&error)));
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

/// The last line of the error output, which usually has the reason.
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
                return Err(
                    "not an answer of adamant-agent's: root_hash is not 64 hexadecimal digits"
                        .to_owned(),
                );
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

    /// Number of differences of each class, the most important first.
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

    /// Number of all denials.
    pub fn denied(&self) -> u64 {
        self.denials
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Makes text safe for a terminal and for copying from it: a line of bounded length. Characters
/// that move the cursor or change the writing direction are escaped.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    let mut all = text.chars();
    for c in all.by_ref().take(LONGEST) {
        // Bidirectional controls, zero-width characters and line separators (Unicode 16:
        // Bidi_Control, Zl and Zp).
        let invisible = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || invisible {
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
#[path = "answer_tests.rs"]
mod tests;
