//! What images/tiny and the tests share: one way to write a file system's contents down, so that
//! two of them can be compared.

pub mod listing;
