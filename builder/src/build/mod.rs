//! Building: the stages in order.

mod agent;
mod cmdline;
mod fit;
pub mod staging;
