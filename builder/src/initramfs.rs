//! The initramfs: the agent as /init and just the kernel modules needed.

use crate::definition::Definition;
use crate::error::Result;
use crate::tree::Tree;

/// A kernel found in the tree.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `uname -r`, for example `6.12.48+deb13-cloud-amd64`.
    pub release: String,
    /// Path of its image in the tree, for example `/boot/vmlinuz-6.12...`.
    pub image: Vec<u8>,
    /// Its configuration (`/boot/config-RELEASE`), empty where there is none.
    pub config: String,
}

/// The newest kernel in the tree (`/boot/vmlinuz-RELEASE` or `/usr/lib/modules/RELEASE/vmlinuz`); `None` where there is none.
pub fn find_kernel(tree: &Tree) -> Result<Option<Kernel>> {
    let _ = tree;
    todo!()
}

/// The initramfs, compressed for this kernel. `agent` is the program's bytes.
pub fn build(tree: &Tree, definition: &Definition, kernel: &Kernel, agent: &[u8]) -> Result<Vec<u8>> {
    let _ = (tree, definition, kernel, agent);
    todo!()
}
