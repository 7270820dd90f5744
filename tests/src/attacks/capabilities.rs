//! `tests/attacks/capabilities`: the attacks that a user with one capability tries.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::attacks::index::{AttackId, Index};
use crate::tool;

/// A capability and the attacks that it could help.
#[derive(Debug, Clone)]
pub struct Capability {
    /// Its name, such as `CAP_KILL`.
    pub name: String,
    /// Extended regular expression of attack ids; `None` if no attack needs the capability.
    pub expression: Option<String>,
}

/// All capabilities, in the order of the file.
pub fn capabilities(directory: &Path) -> std::io::Result<Vec<Capability>> {
    let text = std::fs::read_to_string(directory.join("capabilities"))?;
    let lines = text.lines().filter(|line| line.starts_with("CAP_"));
    Ok(lines
        .map(|line| {
            let (name, expression) = line.split_once(' ').unwrap_or((line, ""));
            Capability {
                name: name.to_owned(),
                expression: Some(expression.to_owned()).filter(|text| !text.is_empty()),
            }
        })
        .collect())
}

impl Capability {
    /// The attacks that a user with this capability tries.
    pub fn attacks(&self, index: &Index) -> BTreeSet<AttackId> {
        match &self.expression {
            Some(expression) => matching(index, &format!("({expression})$")),
            None => BTreeSet::new(),
        }
    }
}

/// The attacks whose id begins with an extended regular expression. `grep` judges, as in `inside`.
pub fn matching(index: &Index, expression: &str) -> BTreeSet<AttackId> {
    let mut grep = tool::command("grep")
        .args(["-E", "-e", &format!("^({expression})")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("grep: {e}"));
    let ids: String = index
        .attacks
        .iter()
        .map(|a| format!("{}\n", a.id))
        .collect();
    // The ids fit into the pipe, so that writing does not wait for grep.
    if let Some(mut stdin) = grep.stdin.take() {
        let _ = stdin.write_all(ids.as_bytes());
    }
    let output = grep
        .wait_with_output()
        .unwrap_or_else(|e| panic!("grep: {e}"));
    let found = tool::lossy(&output.stdout);
    let found: BTreeSet<&str> = found.lines().collect();
    (index.attacks.iter())
        .filter(|attack| found.contains(attack.id.as_str()))
        .map(|attack| attack.id.clone())
        .collect()
}
