//! Building: the stages in order.

pub mod staging;
