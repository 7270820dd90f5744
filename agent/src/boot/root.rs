//! Fourth stage: mounts the verified root and reads the policy inside it.

use adamant_agent::policy::Policy;

use super::block::Disk;
use super::verify::VerifiedRoot;
use super::{Context, Failure};

/// The verified root, mounted read-only at [`adamant_agent::contract::SYSROOT`]. Only [`run`] makes one.
pub struct MountedRoot {
    verified: VerifiedRoot,
    policy: Policy,
}

impl MountedRoot {
    /// What the image asks for.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The disk that the root is on, and therefore the volumes.
    pub fn disk(&self) -> &Disk {
        todo!()
    }
}

/// Mounts it, reads the policy, and where that asks for it every block.
pub fn run(verified: VerifiedRoot, context: &mut Context) -> Result<MountedRoot, Failure> {
    let _ = (verified, context);
    todo!()
}
