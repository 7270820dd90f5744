//! Checks on the finished tree that save an operator a night.

use crate::definition::Definition;
use crate::tree::Tree;

/// Something an operator would want to know before the image is on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the image can't work like this.
    pub is_error: bool,
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to write into image.toml.
    pub hint: String,
}

/// Looks at the tree as the agent and init will find it.
pub fn check(tree: &Tree, definition: &Definition) -> Vec<Finding> {
    let _ = (tree, definition);
    todo!()
}
