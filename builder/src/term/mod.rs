//! Output of commands: messages, JSON documents, progress and timings.

pub mod columns;
pub mod output;
pub mod path_list;
pub mod printable;
pub mod progress;
pub mod timings;
