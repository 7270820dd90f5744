//! Scrubbing: identity and noise out, secrets refused.

pub mod keep;

use crate::definition::Definition;
use crate::error::Result;
use crate::tree::Tree;

/// What one rule did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The rule's name.
    pub rule: &'static str,
    /// The paths it removed or changed.
    pub paths: Vec<Vec<u8>>,
}

/// Applies every rule; `epoch` (seconds since 1970) is what newer modification times are clamped to. Secrets are an error that names the
/// rule and each path.
pub fn scrub(tree: &mut Tree, definition: &Definition, epoch: Option<i64>) -> Result<Vec<Done>> {
    let _ = (tree, definition, epoch);
    todo!()
}
