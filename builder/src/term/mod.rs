//! The terminal: what people and programs see of a command.

pub mod output;
pub mod path_list;
pub mod progress;
pub mod timings;
