//! Two images on one disk, and the boot loader's counters: one that does not start costs three
//! starts, and then the other one runs, without anybody's hands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adamant_tests::alter::{self, Random};
use adamant_tests::esp::{self, Esp};
use adamant_tests::image::{FULL, Image, POWEROFF_AT_ONCE, Tiny, kernels, workspace};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::{slots, tool};

const DEADLINE: Duration = Duration::from_secs(300);

fn installed() -> bool {
    let there = Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").exists();
    if !there {
        tool::skipped(tool::Need::Program("OVMF_CODE_4M.fd (ovmf)"));
    }
    there && tool::have("mren")
}

/// Version 1 or 2 of one image, that restarts where it fails, with this boot loader.
fn version(number: &str, loader: &Path, stub: &Path) -> Tiny {
    let mut tiny = esp::signed();
    number.clone_into(&mut tiny.version);
    let own = kernels("trixie").join("boot/usr/lib/systemd/boot/efi");
    let restart = "[failure]\naction = \"reboot\"\nafter = \"1s\"\n";
    tiny.more = tiny.more.replacen(POWEROFF_AT_ONCE, restart, 1);
    tiny.more = tiny.more.replacen(
        &format!("{:?}", own.join("systemd-bootx64.efi")),
        &format!("{loader:?}"),
        1,
    );
    tiny.more = tiny.more.replacen(
        &format!("{:?}", own.join("linuxx64.efi.stub")),
        &format!("{stub:?}"),
        1,
    );
    tiny.with(FULL)
}

/// A disk with a version 1 that was found good and a version 2 that was not started yet.
fn two_versions(loader: &Path, stub: &Path, scratch: &Scratch) -> (PathBuf, Image) {
    let (first, second) = (
        version("1", loader, stub).build(),
        version("2", loader, stub).build(),
    );
    let disk = esp::copy(&first, scratch);
    Esp::of(&disk).rename("/EFI/Linux/tiny_1+3-0.efi", "tiny_1.efi");
    slots::fill(&disk, &second, scratch);
    (disk, second)
}

/// Switches it on until it switches off or restarts; gives what the console said.
fn start(image: &Image, disk: &Path, scratch: &Scratch) -> String {
    Setup::of(image)
        .firmware(None)
        .disk(disk)
        .deadline(DEADLINE)
        .start(scratch)
        .wait_for_end()
}

/// What is in the folder of unified kernel images. FAT's short names have no case.
fn names(disk: &Path) -> Vec<String> {
    let mut names: Vec<String> = Esp::of(disk)
        .names("/EFI/Linux")
        .iter()
        .map(|path| path.trim_start_matches("/EFI/Linux/").to_lowercase())
        .collect();
    names.sort();
    names
}

/// Five starts with a second version whose root was altered.
fn walk(name: &str, loader: &Path, stub: &Path) {
    let scratch = Scratch::new(name);
    let (disk, second) = two_versions(loader, stub, &scratch);
    let root = alter::partition(&disk, "tiny_2");
    alter::flip(&disk, root.start + 3_000_000);
    for (number, left) in ["2-1", "1-2", "0-3"].into_iter().enumerate() {
        let console = start(&second, &disk, &scratch);
        assert!(
            console.contains("adamant: verify: ") && !console.contains("tiny: "),
            "{name}, start {number}: {console}"
        );
        assert_eq!(
            names(&disk),
            ["tiny_1.efi".to_owned(), format!("tiny_2+{left}.efi")],
            "{name}, start {number}: {console}"
        );
    }
    for number in 3..5 {
        let console = start(&second, &disk, &scratch);
        assert!(
            console.contains("tiny: image tiny 1") && console.contains("tiny: done"),
            "{name}, start {number}: {console}"
        );
        assert_eq!(
            names(&disk),
            ["tiny_1.efi", "tiny_2+0-3.efi"],
            "{name}, start {number}"
        );
    }
}

/// Boot loader and stub of a Debian that the tests have unpacked.
fn programs(suite: &str) -> [PathBuf; 2] {
    let folder = kernels(suite).join("boot/usr/lib/systemd/boot/efi");
    ["systemd-bootx64.efi", "linuxx64.efi.stub"].map(|name| folder.join(name))
}

#[test]
fn an_image_that_does_not_start_costs_three_starts_and_then_the_one_before_runs() {
    if !installed() {
        return;
    }
    let [loader, stub] = programs("trixie");
    walk("walk", &loader, &stub);
}

#[test]
#[ignore = "long: ten more starts by firmware"]
fn so_it_is_with_the_boot_loaders_of_systemd_252_and_262() {
    if !installed() {
        return;
    }
    let [loader, stub] = programs("bookworm");
    walk("walk-252", &loader, &stub);
    let scratch = Scratch::new("newest");
    let newest = ["systemd-bootx64.efi", "linuxx64.efi.stub"].map(|name| {
        let output = tool::output(
            Command::new(workspace().join("tests/newer"))
                .arg("cat")
                .arg(format!("/usr/lib/systemd/boot/efi/{name}")),
        );
        let path = scratch.join(name);
        fs::write(&path, &output.stdout).unwrap();
        output.status.success().then_some(path)
    });
    match newest {
        [Some(loader), Some(stub)] => walk("walk-262", &loader, &stub),
        _ => tool::skipped(tool::Need::Host("no boot loader of a newer Debian")),
    }
}

#[test]
#[ignore = "long: a start by firmware for each of many faults"]
fn every_fault_costs_one_try_and_never_a_hang() {
    if !installed() {
        return;
    }
    let [loader, stub] = programs("trixie");
    type Fault = fn(&Path, &alter::Partition);
    let faults: [(&str, &str, Fault); 9] = [
        ("the super block", "tiny_2", |disk, part| {
            alter::flip(disk, part.start + 1024)
        }),
        ("data", "tiny_2", |disk, part| {
            alter::flip(disk, part.start + Random::new(5).below(19_000_000))
        }),
        ("noise all over", "tiny_2", |disk, part| {
            alter::noise(disk, part.start, 8 << 20)
        }),
        ("the verity super block", "tiny_2_verity", |disk, part| {
            alter::zero(disk, part.start, 512)
        }),
        ("the tree's top", "tiny_2_verity", |disk, part| {
            alter::flip(disk, part.start + 4096)
        }),
        ("the tree's last level", "tiny_2_verity", |disk, part| {
            alter::flip(disk, part.start + 3 * 4096)
        }),
        ("the signature", "tiny_2_sig", |disk, part| {
            alter::flip(disk, part.start + 300)
        }),
        ("no root partition", "tiny_2", |disk, part| {
            alter::drop_partition(disk, part.number)
        }),
        ("no tree partition", "tiny_2_verity", |disk, part| {
            alter::drop_partition(disk, part.number)
        }),
    ];
    for (name, label, fault) in faults {
        let scratch = Scratch::new("fault");
        let (disk, second) = two_versions(&loader, &stub, &scratch);
        fault(&disk, &alter::partition(&disk, label));
        let console = start(&second, &disk, &scratch);
        let line = console
            .lines()
            .find(|line| line.starts_with("adamant: ") || line.contains("] adamant: "))
            .unwrap_or_default();
        println!("{name}: {line}");
        assert!(
            console.contains("adamant: ") && !console.contains("tiny: "),
            "{name}: {console}"
        );
        assert_eq!(
            names(&disk),
            ["tiny_1.efi", "tiny_2+2-1.efi"],
            "{name}: {console}"
        );
    }
}
