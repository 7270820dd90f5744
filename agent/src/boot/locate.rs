//! Second stage: finds the root's data and verity partitions.

use adamant_agent::hash::RootHash;

use super::block::{Disk, Partition};
use super::early::Early;
use super::{Context, Failure};

/// Where the root is. Nothing of it is verified yet.
pub struct Located {
    pub(super) early: Early,
    pub(super) root_hash: RootHash,
    pub(super) data: Partition,
    pub(super) tree: Partition,
    /// The disk that `data` is on.
    pub(super) disk: Disk,
}

/// Waits for the partitions, bounded.
pub fn run(early: Early, context: &mut Context) -> Result<Located, Failure> {
    let _ = (early, context);
    todo!()
}
