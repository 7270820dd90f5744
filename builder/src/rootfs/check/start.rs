//! Requirements for the agent to start the image's init.

use adamant_contract::paths::INITS;

use super::fault::Fault;
use super::program::Programs;
use super::{Finding, Image};
use crate::initramfs::{Configured, find_kernel};
use crate::tree::{Kind, show};

/// Directories where the agent looks for programs of the image.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Drivers for the disk, of which one is needed: the module, and the option that builds it in.
const DISKS: [(&str, &str); 7] = [
    ("virtio_blk", "VIRTIO_BLK"),
    ("virtio_scsi", "SCSI_VIRTIO"),
    ("nvme", "BLK_DEV_NVME"),
    ("ahci", "SATA_AHCI"),
    ("xen_blkfront", "XEN_BLKDEV_FRONTEND"),
    ("hv_storvsc", "HYPERV_STORAGE"),
    ("vmw_pvscsi", "VMWARE_PVSCSI"),
];

pub fn check(image: &Image, programs: &Programs) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(init(image, programs));
    findings.extend(volume_tools(image, programs));
    findings.extend(machine_id(image));
    findings.extend(image_name(image));
    findings.extend(kernel(image));
    findings
}

fn error(rule: &'static str, message: String, hint: impl Into<String>) -> Finding {
    Finding {
        is_error: true,
        rule,
        message,
        hint: hint.into(),
    }
}

/// An executable file, following links: the agent's condition for a program.
fn is_executable(image: &Image, path: &str) -> bool {
    image.tree.resolve(path.as_bytes()).is_some_and(|id| {
        let node = image.tree.node(id);
        matches!(&node.kind, Kind::File(_)) && node.meta.mode & 0o111 != 0
    })
}

/// The agent starts the init of the kernel command line, or the first of the usual paths. If that
/// fails, it tries no other.
fn init(image: &Image, programs: &Programs) -> Option<Finding> {
    const HINT: &str = "add the package systemd-sysv to a debian source, or [[file]] path = \"/sbin/init\", copy = \"...\", mode = \"0755\"";
    // As in the kernel, the last `init=` counts, and arguments after `--` are for init.
    let words = image
        .definition
        .kernel
        .cmdline
        .split_whitespace()
        .take_while(|word| *word != "--");
    let asked = words.filter_map(|word| word.strip_prefix("init=")).last();
    let chosen = asked.or_else(|| INITS.into_iter().find(|path| is_executable(image, path)));
    let Some(path) = chosen else {
        let named = INITS.into_iter().find(|path| image.is_named(path));
        let message = match named.and_then(|path| programs.fault(path).map(|fault| (path, fault))) {
            Some((path, fault)) => format!("the image's init {path} cannot run: {fault}"),
            None => format!("the image has no init ({})", INITS.join(", ")),
        };
        return Some(error("no-init", message, HINT));
    };
    let fault = programs.fault(path)?;
    let key = if asked.is_some() {
        " of kernel.cmdline"
    } else {
        ""
    };
    Some(error(
        "init-cannot-run",
        format!(
            "the image's init {}{key} cannot run: {fault}",
            with_target(programs, path)
        ),
        fault.remedy(path),
    ))
}

/// A path, and the file that its links lead to.
fn with_target(programs: &Programs, path: &str) -> String {
    match programs.find(path) {
        Ok(found) if found.path != path => format!("{path} (which is {})", found.path),
        _ => path.to_owned(),
    }
}

/// Programs that the agent runs to create, check and grow volumes.
fn volume_tools(image: &Image, programs: &Programs) -> Vec<Finding> {
    if image.definition.volumes.is_empty() {
        return Vec::new();
    }
    let find = |name: &str| {
        PROGRAM_FOLDERS
            .iter()
            .map(|folder| format!("{folder}/{name}"))
            .find(|path| is_executable(image, path))
    };
    let (mut missing, mut findings) = (Vec::new(), Vec::new());
    for name in ["mkfs.ext4", "e2fsck", "resize2fs"] {
        let Some(path) = find(name) else {
            missing.push(name);
            continue;
        };
        match programs.fault(&path) {
            None => {}
            Some(Fault::Empty) => missing.push(name),
            Some(fault) => findings.push(error(
                "volume-tool-cannot-run",
                format!(
                    "the volumes need {}, which cannot run: {fault}",
                    with_target(programs, &path)
                ),
                format!(
                    "{}; or write volumes = [] before the first table",
                    fault.remedy(&path)
                ),
            )),
        }
    }
    if !missing.is_empty() {
        findings.push(error(
            "no-volume-tools",
            format!(
                "the image has no {}, which the agent needs to create, check and grow volumes",
                missing.join(", ")
            ),
            "add the package e2fsprogs to a debian source, or write volumes = [] before the first table",
        ));
    }
    findings
}

fn machine_id(image: &Image) -> Option<Finding> {
    const PATH: &str = "/etc/machine-id";
    const HINT: &str = "[[file]] path = \"/etc/machine-id\", content = \"\"";
    let Some(id) = image.tree.lookup(PATH.as_bytes()) else {
        let message = format!(
            "{PATH} is missing: init can't create it on a read-only root, and the server's own machine-id can't be mounted over it"
        );
        return crate::rootfs::scrub::has_systemd(image.tree)
            .then(|| error("no-machine-id", message, HINT));
    };
    match &image.tree.node(id).kind {
        Kind::File(content)
            if content.is_empty()
                || content
                    .to_vec(64)
                    .is_ok_and(|text| text == b"uninitialized\n") =>
        {
            None
        }
        Kind::File(_) => Some(Finding {
            is_error: false,
            rule: "shared-machine-id",
            message: format!(
                "{PATH} is kept: without a state volume, all servers of this image have the same machine-id"
            ),
            hint: "remove /etc/machine-id from [scrub] keep".to_owned(),
        }),
        _ => Some(error(
            "no-machine-id",
            format!("{PATH} is not a file: the server's own machine-id can't be mounted over it"),
            HINT,
        )),
    }
}

/// The builder writes the image's name; this finds entries that prevent it.
fn image_name(image: &Image) -> Option<Finding> {
    let text = image
        .text("/etc/os-release")
        .or_else(|| image.text("/usr/lib/os-release"))
        .unwrap_or_default();
    let named = text.lines().any(|line| line.starts_with("IMAGE_ID="))
        && text.lines().any(|line| line.starts_with("IMAGE_VERSION="));
    (!named).then(|| {
        error(
            "no-image-name",
            "os-release has no IMAGE_ID and IMAGE_VERSION: boot loaders and tools can't tell versions apart".to_owned(),
            "[[file]] path = \"/etc/os-release\", link = \"../usr/lib/os-release\"",
        )
    })
}

/// A kernel that cannot find a disk or mount volumes. An image without a kernel is valid: it
/// consists of the root only.
fn kernel(image: &Image) -> Vec<Finding> {
    let kernel = match find_kernel(image.tree) {
        Ok(Some(kernel)) => kernel,
        Ok(None) => return Vec::new(),
        Err(why) => {
            return vec![error(
                "unusable-kernel",
                why.message().to_owned(),
                why.remedy()
                    .unwrap_or("install a kernel package")
                    .to_owned(),
            )];
        }
    };
    let modules = ["/usr/lib/modules", "/lib/modules"]
        .iter()
        .find_map(|base| image.text(&format!("{base}/{}/modules.dep", kernel.release)));
    let modules = modules.unwrap_or_default();
    // The left side of each line is a module's path. Module names may have - or _.
    let names: std::collections::BTreeSet<String> = modules
        .lines()
        .filter_map(|line| {
            line.split(':')
                .next()?
                .rsplit('/')
                .next()?
                .split_once(".ko")
                .map(|(name, _)| name.replace('-', "_"))
        })
        .collect();
    let has = |module: &str, option: &str| {
        names.contains(module) || kernel.configured(option) == Configured::BuiltIn
    };
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
    if !image.definition.volumes.is_empty() && !kernel.config.is_empty() && !has("ext4", "EXT4_FS")
    {
        findings.push(error(
            "no-ext4",
            format!("{path} does not support ext4, which the volumes need"),
            "use a kernel with CONFIG_EXT4_FS, or write volumes = [] before the first table",
        ));
    }
    findings.extend(serial_console(image));
    findings
}

/// `adamant boot` and the consoles of most clouds show the first serial port.
fn serial_console(image: &Image) -> Option<Finding> {
    let cmdline = &image.definition.kernel.cmdline;
    let has_one = cmdline.split_whitespace().any(|word| {
        word.strip_prefix("console=")
            .is_some_and(|port| port.split(',').next() == Some("ttyS0"))
    });
    (!has_one).then(|| Finding {
        is_error: false,
        rule: "no-serial-console",
        message: "the kernel command line has no console=ttyS0, so nothing is shown on the serial console: `adamant boot` and most clouds show an empty screen"
            .to_owned(),
        hint: "[kernel] cmdline = \"console=tty0 console=ttyS0\"".to_owned(),
    })
}
