//! FAT file systems: the writer for our EFI system partitions, the reader for everybody's, and the
//! on-disk structures that both share.

mod format;
pub mod read;
pub mod write;
