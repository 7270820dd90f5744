//! The geometry of the ext4 file systems that the agent makes on volumes.

/// Volumes below this size, in bytes, get small block groups. With ext4's default groups of 128 MiB
/// they would have fewer than two full groups, and so no copy of the superblock.
pub const SMALL_VOLUME: u64 = 2 * 32768 * 4096;
/// Blocks of 4 KiB in a block group of a small volume.
pub const SMALL_VOLUME_GROUP: u64 = 2048;
