//! The builder's program: a table of verbs.

fn main() {}
