//! DataSettings of the data area.

use std::sync::Arc;

use super::algorithm::Algorithm;
use crate::cache::Cache;

/// How the data area is compressed.
#[derive(Debug, Clone)]
pub struct DataSettings {
    /// `None`: no compression.
    pub algorithm: Option<Algorithm>,
    /// Largest cluster, bytes.
    pub cluster: usize,
    /// Worker threads.
    pub jobs: usize,
    /// Results of earlier builds.
    pub cache: Option<Arc<Cache>>,
}
