//! Requirements of the seal, and faults in its part of the definition.

use adamant_contract::policy::is_below;

use super::{Finding, Image, listed};
use crate::definition::{Deny, Enforce, Level};
use crate::initramfs::{Configured, find_kernel};
use crate::rootfs::{interpreters, start_places};
use crate::tree::{Kind, show};

const SSH: [&str; 2] = ["sshd", "dropbear"];

pub fn check(image: &Image) -> Vec<Finding> {
    let mut findings = denied(image);
    findings.extend(kernel(image));
    findings.extend(tools(image));
    findings.extend(places(image));
    findings.extend(exceptions(image));
    findings.extend(start(image));
    findings
}

/// Executable files of the image with one of these names, ignoring a version.
fn denied(image: &Image) -> Vec<Finding> {
    let wanted = &image.definition.deny;
    let mut found: Vec<(Deny, Vec<String>)> =
        wanted.iter().map(|deny| (*deny, Vec::new())).collect();
    if found.is_empty() {
        return Vec::new();
    }
    image.tree.visit(&mut |path, id| {
        let node = image.tree.node(id);
        let shown = show(path);
        let name = interpreters::name_of(&shown);
        let is_program = matches!(node.kind, Kind::File(_)) && node.meta.mode & 0o111 != 0;
        for (deny, paths) in &mut found {
            let is = match deny {
                Deny::Shell => is_program && interpreters::is_shell(name),
                Deny::Interpreter => is_program && interpreters::is_interpreter(name),
                Deny::Setuid => matches!(node.kind, Kind::File(_)) && node.meta.mode & 0o6000 != 0,
                Deny::Ssh => is_program && SSH.contains(&name),
            };
            if is {
                paths.push(shown.clone());
            }
        }
    });
    found.retain(|(_, paths)| !paths.is_empty());
    let finding = |(deny, paths): (Deny, Vec<String>)| Finding {
        is_error: true,
        rule: "denied",
        message: format!(
            "[seal] deny has {:?}, and the image has {}",
            deny.name(),
            listed(&paths)
        ),
        hint: format!(
            "remove it with [[file]] path = {:?}, absent = true; or leave out its package; or remove {:?} from deny",
            paths[0],
            deny.name()
        ),
    };
    found.into_iter().map(finding).collect()
}

/// An error if the kernel cannot load the guard.
fn kernel(image: &Image) -> Option<Finding> {
    let seal = &image.definition.seal;
    let kernel = find_kernel(image.tree)
        .ok()
        .flatten()
        .filter(|kernel| seal.level == Level::Guard && !kernel.config.is_empty())?;
    let missing: Vec<&str> = ["BPF_LSM", "DEBUG_INFO_BTF", "SECURITY_LOCKDOWN_LSM"]
        .into_iter()
        .filter(|option| kernel.configured(option) != Configured::BuiltIn)
        .collect();
    (!missing.is_empty()).then(|| Finding {
        is_error: seal.enforce == Enforce::Require,
        rule: "kernel-without-guard",
        message: format!("[seal] level is \"guard\", and {} is built without {}", show(&kernel.image), missing.join(", ")),
        hint: "use a kernel with them, for example Debian's linux-image-cloud-amd64 or linux-image-amd64; or a lower level".to_owned(),
    })
}

/// Without modprobe, no drivers are loaded before modules are disabled.
fn tools(image: &Image) -> Option<Finding> {
    let has_modprobe = ["/usr/sbin/modprobe", "/sbin/modprobe"]
        .iter()
        .any(|path| image.exists(path));
    let is_full_system = crate::rootfs::scrub::has_systemd(image.tree);
    (image.definition.seal.level >= Level::Lockdown && is_full_system && !has_modprobe).then(|| Finding {
        is_error: false,
        rule: "no-modprobe",
        message: "from level \"lockdown\" on no module can be loaded after the start, and the image has no modprobe to load the hardware's drivers before that"
            .to_owned(),
        hint: "add the package kmod to a debian source".to_owned(),
    })
}

/// Exceptions without an effect.
fn places(image: &Image) -> Option<Finding> {
    let missing: Vec<String> = image
        .definition
        .seal
        .allow
        .mounts
        .iter()
        .filter(|path| !image.is_directory(path) && !image.definition.is_on_volume(path))
        .cloned()
        .collect();
    let first = missing.first()?;
    Some(Finding {
        is_error: true,
        rule: "no-mount-folder",
        message: format!(
            "[seal.allow] mounts names {}, which the image does not have",
            listed(&missing)
        ),
        hint: format!("[[file]] path = {first:?}, directory = true"),
    })
}

/// Listed interpreters that are none: the guard would know another program, or the intended program
/// would have no exception.
fn exceptions(image: &Image) -> Vec<Finding> {
    let definition = image.definition;
    if definition.interpreters.is_empty() && definition.seal.allow.scripts.is_empty() {
        return Vec::new();
    }
    let found = interpreters::find(image.tree, definition);
    let program = |path: &str| {
        image
            .tree
            .resolve(path.as_bytes())
            .filter(|id| interpreters::is_program(image.tree, *id))
    };
    let known =
        |path: &str| program(path).is_some_and(|id| found.iter().any(|(_, known)| *known == id));
    let wrong = |key: &str, paths: Vec<String>, what: &str, hint: String| {
        let message = format!("{key} names {}, which {what}", listed(&paths));
        (!paths.is_empty()).then_some(Finding {
            is_error: true,
            rule: "no-interpreter",
            message,
            hint,
        })
    };
    let unknown = |list: &[String]| -> Vec<String> {
        list.iter().filter(|path| !known(path)).cloned().collect()
    };
    let all: Vec<String> = found.iter().map(|(path, _)| path.clone()).collect();
    let all = if all.is_empty() {
        "the image has none".to_owned()
    } else {
        format!("the image has {}", listed(&all))
    };
    let more = "name a program of the image that is neither a script nor below a volume".to_owned();
    [
        wrong(
            "[seal] interpreters",
            unknown(&definition.interpreters),
            "is not a program of the image",
            more,
        ),
        wrong(
            "[seal.allow] scripts",
            unknown(&definition.seal.allow.scripts),
            "is not an interpreter of the image",
            format!("name one of its interpreters: {all}"),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Instructions on volumes that programs of the image would follow at each start, and exceptions
/// for places that are not on a volume.
fn start(image: &Image) -> Vec<Finding> {
    let Image { tree, definition } = image;
    let open = start_places::open_places(tree, definition)
        .into_iter()
        .map(|place| Finding {
            is_error: true,
            rule: "instructions-on-volume",
            message: format!(
                "{} is on a volume, and {} follows instructions from there at each start. They can't be the image's: {}",
                place.path, place.reader, place.why
            ),
            hint: format!(
                "leave out the package of {}; or let the volume decide what runs at each start: [seal.allow] at_start = [{:?}]",
                place.reader, place.path
            ),
        });
    let allowed = &definition.seal.allow.at_start;
    let is_on_root = |path: &&String| {
        !definition.volumes.iter().any(|volume| {
            let mount = &volume.policy.mount;
            mount == *path || is_below(path, mount) || is_below(mount, path)
        })
    };
    let useless = allowed.iter().filter(is_on_root).map(|path| Finding {
        is_error: true,
        rule: "no-start-place",
        message: format!("[seal.allow] at_start names {path}, which is not on a volume"),
        hint: "leave it out: the verified root has no instructions but the image's".to_owned(),
    });
    open.chain(useless).collect()
}
