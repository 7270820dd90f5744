//! The stage that mounts the verified root and reads the policy inside it.
//!
//! Promise: the mounted file system is on the verified device, read-only. The policy comes from
//! inside it, by a path that cannot lead out of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use adamant_contract::paths::{POLICY_LIMIT, POLICY_PATH, SYSROOT};
use adamant_contract::policy::{Policy, VerifyBoot};
use adamant_contract::report::StageName;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};

use super::verify::VerifiedRoot;
use super::{Context, Failure, outcome, scan};
use crate::kernel::block::Disk;

const STAGE: StageName = StageName::Root;

/// The verified root, mounted read-only at [`SYSROOT`]. Only [`mount_root`] makes one.
pub struct MountedRoot {
    verified: VerifiedRoot,
    policy: Policy,
}

impl MountedRoot {
    /// The image's policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The disk with the root and the volumes.
    pub fn disk(&self) -> &Disk {
        self.verified.disk()
    }

    /// The verified device.
    pub(super) fn verified(&self) -> &VerifiedRoot {
        &self.verified
    }
}

/// Mounts the root, reads the policy, and, if the policy asks for it, reads every block.
pub fn mount_root(verified: VerifiedRoot, context: &mut Context) -> Result<MountedRoot, Failure> {
    let _ = fs::create_dir(SYSROOT);
    // Device nodes come from devtmpfs alone. Set-user-ID programs in the image are allowed.
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    if let Err(errno) = mount(
        Some(&verified.device()),
        SYSROOT,
        Some("erofs"),
        flags,
        None::<&str>,
    ) {
        // The root directory's block may be corrupted. Reading all blocks finds out which one it
        // is, and that the kernel is not the cause.
        if errno == Errno::EIO {
            scan::read_all_blocks(&verified, context)?;
        }
        let why = if errno == Errno::ENODEV {
            "the kernel knows no erofs"
        } else {
            errno.desc()
        };
        let hint = "use a kernel whose erofs has this image's compression, or build with `compression = \"none\"`";
        return Err(Failure::new(STAGE, "mounting the verified root", why, hint));
    }
    let policy = read_policy().map_err(|why| {
        Failure::new(
            STAGE,
            POLICY_PATH,
            why,
            "build the image with an adamant of the agent's version",
        )
    })?;
    outcome::set_outcome(policy.failure, context);
    context.report.image_id.clone_from(&policy.image.id);
    context
        .report
        .image_version
        .clone_from(&policy.image.version);
    context.report.policy = Some(policy.clone());
    if policy.verify.boot == VerifyBoot::Full {
        scan::read_all_blocks(&verified, context)?;
    }
    Ok(MountedRoot { verified, policy })
}

fn read_policy() -> Result<Policy, String> {
    let file =
        open_inside(POLICY_PATH, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map_err(|e| {
            match e.kind() {
                io::ErrorKind::NotFound => "the image has no policy".to_owned(),
                _ => e.to_string(),
            }
        })?;
    let mut bytes = Vec::new();
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err("not a regular file".to_owned());
    }
    file.take(POLICY_LIMIT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    Policy::parse(&bytes).map_err(|e| e.to_string())
}

/// Opens a path of the image. Symbolic links are resolved as if the image were the root.
pub fn open_inside(path: &str, flags: OFlag) -> io::Result<File> {
    let root = File::open(SYSROOT)?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(&root, Path::new(path), how)?.into())
}
