//! What the whole-system tests share: a scratch folder, images built by the real programs, ways to
//! alter them, a QEMU machine with a deadline, and other projects' tools as judges. Nothing here
//! stands in for the real thing.

pub mod alter;
pub mod archive;
pub mod attacks;
pub mod entries;
pub mod esp;
pub mod image;
pub mod kernel;
pub mod machine;
pub mod markdown;
pub mod oddities;
pub mod program;
pub mod scratch;
pub mod server;
pub mod slots;
pub mod talk;
pub mod tool;
pub mod writable;
