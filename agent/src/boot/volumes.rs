//! Fifth stage: the volumes, which outlive images.

use super::root::MountedRoot;
use super::{Context, Failure};

/// The root with its volumes mounted below it. Only [`run`] makes one.
pub struct MountedVolumes {
    root: MountedRoot,
}

impl MountedVolumes {
    /// The root the volumes are mounted on.
    pub fn root(&self) -> &MountedRoot {
        &self.root
    }
}

/// Mounts the policy's volumes.
pub fn run(root: MountedRoot, context: &mut Context) -> Result<MountedVolumes, Failure> {
    let _ = context;
    if let Some(volume) = root.policy().volumes.first() {
        return Err(Failure::new("volumes", format!("volume {:?}", volume.name), "this agent mounts none yet", "build the image with `volumes = []`"));
    }
    Ok(MountedVolumes { root })
}
