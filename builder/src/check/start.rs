//! What has to be there for the agent to reach the image's init.

use super::{Finding, Image};
use crate::initramfs::{Configured, find_kernel};
use crate::tree::{Kind, show};

/// Where the agent looks for an init, in its order.
const INITS: [&str; 5] = ["/sbin/init", "/usr/lib/systemd/systemd", "/etc/init", "/bin/init", "/init"];
/// Where the agent looks for programs of the image.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Mount points that agent and kernel need.
const MOUNT_POINTS: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];
/// One of these finds the disk: module, and the option that builds it in.
const DISKS: [(&str, &str); 7] = [
    ("virtio_blk", "VIRTIO_BLK"),
    ("virtio_scsi", "SCSI_VIRTIO"),
    ("nvme", "BLK_DEV_NVME"),
    ("ahci", "SATA_AHCI"),
    ("xen_blkfront", "XEN_BLKDEV_FRONTEND"),
    ("hv_storvsc", "HYPERV_STORAGE"),
    ("vmw_pvscsi", "VMWARE_PVSCSI"),
];

pub fn check(image: &Image) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(init(image));
    findings.extend(mount_points(image));
    findings.extend(volume_tools(image));
    findings.extend(machine_id(image));
    findings.extend(image_name(image));
    findings.extend(kernel(image));
    findings
}

fn error(rule: &'static str, message: String, hint: impl Into<String>) -> Finding {
    Finding { is_error: true, rule, message, hint: hint.into() }
}

/// An executable file, links followed.
fn is_program(image: &Image, path: &str) -> bool {
    image.tree.resolve(path.as_bytes()).is_some_and(|id| {
        let node = image.tree.node(id);
        matches!(&node.kind, Kind::File(content) if !content.is_empty()) && node.meta.mode & 0o111 != 0
    })
}

/// Whether a name is there, wherever it leads.
fn is_named(image: &Image, path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    image.tree.resolve(folder.as_bytes()).is_some_and(|id| image.tree.children(id).any(|(child, _)| child == name.as_bytes()))
}

fn init(image: &Image) -> Option<Finding> {
    if INITS.iter().any(|path| is_program(image, path)) {
        return None;
    }
    let found: Vec<&str> = INITS.into_iter().filter(|path| is_named(image, path)).collect();
    let message = match found.first() {
        Some(path) => format!("{path} is there, but not an executable file, or its link leads nowhere"),
        None => format!("the image has no init ({})", INITS.join(", ")),
    };
    Some(error("no-init", message, "add the package systemd-sysv to a debian source, or [[file]] path = \"/sbin/init\", copy = \"...\", mode = \"0755\""))
}

fn mount_points(image: &Image) -> Vec<Finding> {
    let volumes = image.definition.volumes.iter().map(|volume| volume.policy.mount.as_str());
    let missing = MOUNT_POINTS.into_iter().chain(volumes).filter(|path| !image.is_directory(path));
    missing
        .map(|path| {
            error(
                "no-mount-point",
                format!("{path} is no directory, but a file system is mounted there"),
                format!("[[file]] path = {path:?}, directory = true"),
            )
        })
        .collect()
}

fn volume_tools(image: &Image) -> Option<Finding> {
    if image.definition.volumes.is_empty() {
        return None;
    }
    let has = |name: &str| PROGRAM_FOLDERS.iter().any(|folder| is_program(image, &format!("{folder}/{name}")));
    let missing: Vec<&str> = ["mkfs.ext4", "e2fsck", "resize2fs"].into_iter().filter(|name| !has(name)).collect();
    (!missing.is_empty()).then(|| {
        error(
            "no-volume-tools",
            format!("there are volumes, but the image has no {} to make, check and grow them with", missing.join(", ")),
            "add the package e2fsprogs to a debian source, or write volumes = [] above all tables",
        )
    })
}

fn machine_id(image: &Image) -> Option<Finding> {
    const PATH: &str = "/etc/machine-id";
    const HINT: &str = "[[file]] path = \"/etc/machine-id\", content = \"\"";
    let Some(id) = image.tree.lookup(PATH.as_bytes()) else {
        let message = format!("{PATH} is missing: on a read-only root init can't make one, and the server's own has no place");
        return crate::scrub::has_systemd(image.tree).then(|| error("no-machine-id", message, HINT));
    };
    match &image.tree.node(id).kind {
        Kind::File(content) if content.is_empty() || content.to_vec(64).is_ok_and(|text| text == b"uninitialized\n") => None,
        Kind::File(_) => Some(Finding {
            is_error: false,
            rule: "shared-machine-id",
            message: format!("{PATH} is kept as it is: without a state volume every server from this image is the same machine"),
            hint: "take /etc/machine-id out of [scrub] keep".to_owned(),
        }),
        _ => Some(error("no-machine-id", format!("{PATH} is not a file: the server's own can't be put over it"), HINT)),
    }
}

/// The builder writes the name; what stands in its way is found here.
fn image_name(image: &Image) -> Option<Finding> {
    let text = image.text("/etc/os-release").or_else(|| image.text("/usr/lib/os-release")).unwrap_or_default();
    let named = text.lines().any(|line| line.starts_with("IMAGE_ID=")) && text.lines().any(|line| line.starts_with("IMAGE_VERSION="));
    (!named).then(|| {
        error(
            "no-image-name",
            "os-release has no IMAGE_ID and IMAGE_VERSION: boot loaders and tools can't tell versions apart".to_owned(),
            "[[file]] path = \"/etc/os-release\", link = \"../usr/lib/os-release\"",
        )
    })
}

/// A kernel that can't find a disk, or has nothing to mount volumes with. No kernel at all is no mistake: then there is only the root.
fn kernel(image: &Image) -> Vec<Finding> {
    let kernel = match find_kernel(image.tree) {
        Ok(Some(kernel)) => kernel,
        Ok(None) => return Vec::new(),
        Err(why) => return vec![error("unusable-kernel", why.message().to_owned(), why.way_out().unwrap_or("install a kernel package").to_owned())],
    };
    let modules = ["/usr/lib/modules", "/lib/modules"].iter().find_map(|base| image.text(&format!("{base}/{}/modules.dep", kernel.release)));
    let modules = modules.unwrap_or_default();
    // The left side of each line is a module's path; names have - or _ as their authors liked.
    let names: std::collections::BTreeSet<String> =
        modules.lines().filter_map(|line| line.split(':').next()?.rsplit('/').next()?.split_once(".ko").map(|(name, _)| name.replace('-', "_"))).collect();
    let has = |module: &str, option: &str| names.contains(module) || kernel.configured(option) == Configured::BuiltIn;
    let path = show(&kernel.image);
    let mut findings = Vec::new();
    if !kernel.config.is_empty() && !DISKS.iter().any(|(module, option)| has(module, option)) {
        let wanted: Vec<&str> = DISKS.iter().map(|disk| disk.0).collect();
        findings.push(error(
            "no-disk-driver",
            format!("{path} has no driver for any disk ({}), so the root will not be found", wanted.join(", ")),
            "use a kernel with one of them, for example the package linux-image-cloud-amd64 or linux-image-amd64",
        ));
    }
    if !image.definition.volumes.is_empty() && !kernel.config.is_empty() && !has("ext4", "EXT4_FS") {
        findings.push(error(
            "no-ext4",
            format!("there are volumes, but {path} has no ext4"),
            "use a kernel with CONFIG_EXT4_FS, or write volumes = [] above all tables",
        ));
    }
    findings
}
