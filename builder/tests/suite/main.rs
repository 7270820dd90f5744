//! The builder as a library and as a program, judged by other projects' tools.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod build;
mod drift;
mod erofs;
