//! Code that images/tiny and the tests share: listings of file systems for comparison.

pub mod listing;
