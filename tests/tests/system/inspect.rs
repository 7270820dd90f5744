//! `adamant inspect` says of our disk that all is well, of each fault which line it breaks, and of
//! other projects' disks what they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adamant_tests::alter::{self, Random};
use adamant_tests::esp::{self, Esp};
use adamant_tests::image::{Image, builder, other_keys, our_keys, workspace};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// What was said, and the numbers of the lines that differ; whether the exit code fits them.
fn inspect(target: &Path, certificates: &[PathBuf]) -> (String, Vec<u64>) {
    let mut command = builder();
    command
        .arg("inspect")
        .arg(target)
        .args(["--json", "--quiet"]);
    for certificate in certificates {
        command.arg("--certificate").arg(certificate);
    }
    let output = tool::output(&mut command);
    let (said, errors) = (tool::lossy(&output.stdout), tool::lossy(&output.stderr));
    let json: serde_json::Value =
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}{errors}"));
    let lines = json["found"][0]["checklist"]
        .as_array()
        .unwrap_or_else(|| panic!("{said}{errors}"));
    let differ: Vec<u64> = lines
        .iter()
        .filter(|line| line["verdict"] == "differs")
        .filter_map(|line| line["number"].as_u64())
        .collect();
    assert_eq!(
        output.status.code(),
        Some(i32::from(!differ.is_empty())),
        "{said}{errors}"
    );
    (said, differ)
}

fn ours() -> Vec<PathBuf> {
    vec![
        our_keys().join("secure-boot.crt"),
        our_keys().join("verity.crt"),
    ]
}

fn set(disk: &Path, option: &str, label: &str, value: &str) {
    let number = alter::partition(disk, label).number.to_string();
    tool::run(
        tool::command("sfdisk")
            .args(["-q", "--no-reread", option])
            .arg(disk)
            .args([&number, value]),
    );
}

#[test]
fn every_line_that_can_be_checked_is_ok_on_our_disk() {
    let image = esp::signed().build();
    for certificates in [Vec::new(), ours()] {
        let (said, differ) = inspect(&image.dir, &certificates);
        assert_eq!(differ, [0; 0], "{said}");
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        let verdicts: Vec<&str> = json["found"][0]["checklist"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["verdict"].as_str().unwrap())
            .collect();
        assert_eq!(
            (&verdicts[..14], &verdicts[14..]),
            (&["ok"; 14][..], &["not checked"; 4][..]),
            "{said}"
        );
    }
    // The unified kernel image by itself, and others' keys.
    assert_eq!(inspect(&image.path("efi"), &ours()).1, [0; 0]);
    assert_eq!(
        inspect(&image.path("efi"), &[other_keys().join("secure-boot.crt")]).1,
        [12]
    );
    assert_eq!(
        inspect(&image.dir, &[other_keys().join("secure-boot.crt")]).1,
        [9, 14]
    );
}

/// What is done to a copy of the disk, and the lines that must say so.
type Fault<'a> = (&'a str, &'a dyn Fn(&Path, &Scratch), &'a [u64]);

#[test]
fn each_fault_is_noticed_by_its_line() {
    if !tool::have("mcopy") {
        return;
    }
    let image = esp::signed().build();
    let unified = fs::read(image.path("efi")).unwrap();
    let name = format!("/EFI/Linux/{}+3-0.efi", image.stem);
    let changed = |at: usize| {
        let mut bytes = unified.clone();
        bytes[at] ^= 1;
        bytes
    };
    let section = |name: &[u8]| {
        unified
            .windows(name.len())
            .position(|window| window == name)
            .unwrap()
    };
    let faults: [Fault; 17] = [
        (
            "the backup table",
            &|disk, _| alter::flip(disk, fs::metadata(disk).unwrap().len() - 512 + 40),
            &[1],
        ),
        (
            "an unknown type",
            &|disk, _| {
                set(
                    disk,
                    "--part-type",
                    "logs",
                    "01234567-89ab-cdef-0123-456789abcdef",
                )
            },
            &[2],
        ),
        (
            "no ESP",
            &|disk, _| {
                set(
                    disk,
                    "--part-type",
                    "esp",
                    "0fc63daf-8483-4772-8e79-3d69d8477de4",
                )
            },
            &[2, 4],
        ),
        (
            "another PARTUUID",
            &|disk, _| {
                set(
                    disk,
                    "--part-uuid",
                    "tiny_1",
                    "01234567-89ab-cdef-0123-456789abcdef",
                )
            },
            &[3, 8, 9],
        ),
        (
            "a root that is not read-only",
            &|disk, _| set(disk, "--part-attrs", "tiny_1", ""),
            &[4, 5],
        ),
        (
            "an empty slot without its flag",
            &|disk, _| set(disk, "--part-attrs", "_empty", "GUID:60"),
            &[4],
        ),
        (
            "no signature",
            &|disk, _| alter::drop_partition(disk, alter::partition(disk, "tiny_1_sig").number),
            &[5, 9],
        ),
        (
            "another label",
            &|disk, _| set(disk, "--part-label", "tiny_1_sig", "tiny_2_sig"),
            &[7],
        ),
        (
            "a block of the root",
            &|disk, _| alter::flip(disk, alter::partition(disk, "tiny_1").start + 9_000_000),
            &[8],
        ),
        (
            "the tree",
            &|disk, _| {
                alter::flip(
                    disk,
                    alter::partition(disk, "tiny_1_verity").start + 2 * 4096 + 5,
                )
            },
            &[8],
        ),
        (
            "a letter of the signature",
            &|disk, _| alter::flip(disk, alter::partition(disk, "tiny_1_sig").start + 1200),
            &[9],
        ),
        (
            "a byte of the kernel",
            &|disk, scratch| Esp::of(disk).write(&name, &changed(unified.len() / 2), scratch),
            &[12, 13, 14],
        ),
        (
            "the command line",
            &|disk, scratch| {
                Esp::of(disk).write(&name, &changed(section(b"roothash=") + 20), scratch)
            },
            &[3, 13, 14],
        ),
        (
            "a section's address",
            &|disk, scratch| {
                Esp::of(disk).write(&name, &changed(section(b".cmdline") + 13), scratch)
            },
            &[12, 14],
        ),
        (
            "a read-only image",
            &|disk, _| Esp::of(disk).read_only(&name),
            &[14],
        ),
        (
            "a default",
            &|disk, scratch| {
                Esp::of(disk).write(
                    "/loader/loader.conf",
                    b"timeout 0\ndefault tiny*\n",
                    scratch,
                )
            },
            &[14],
        ),
        (
            "no boot loader",
            &|disk, _| Esp::of(disk).rename("/EFI/BOOT/BOOTX64.EFI", "OTHER.EFI"),
            &[14],
        ),
    ];
    for (what, fault, lines) in faults {
        let scratch = Scratch::new("inspect");
        // Beside its manifest, as a build's output is.
        let out = scratch.join("out");
        fs::create_dir(&out).unwrap();
        let copy = Image {
            dir: out.clone(),
            stem: image.stem.clone(),
        };
        fs::copy(image.path("manifest.json"), copy.path("manifest.json")).unwrap();
        alter::copy(&image.path("raw"), &copy.path("raw"));
        fault(&copy.path("raw"), &scratch);
        let (said, differ) = inspect(&out, &ours());
        println!("{what}: {differ:?}");
        assert!(
            lines.iter().all(|line| differ.contains(line)),
            "{what}: {differ:?}, not {lines:?}: {said}"
        );
        assert!(
            differ.len() <= lines.len() + 1,
            "{what}: {differ:?}, not {lines:?}: {said}"
        );
    }
}

#[test]
fn a_disk_of_another_project_is_told_as_what_it_is() {
    let Some(mut repart) = tool::newer("systemd-repart") else {
        return;
    };
    let scratch = Scratch::new("foreign");
    let definitions = scratch.join("repart.d");
    fs::create_dir(&definitions).unwrap();
    let tree = scratch.join("tree");
    fs::create_dir_all(tree.join("usr/lib")).unwrap();
    fs::write(
        tree.join("usr/lib/os-release"),
        "ID=foreign\nIMAGE_ID=foreign\nIMAGE_VERSION=7\n",
    )
    .unwrap();
    let write = |name: &str, text: &str| {
        fs::write(definitions.join(name), format!("[Partition]\n{text}")).unwrap()
    };
    write(
        "10-esp.conf",
        "Type=esp\nFormat=vfat\nSizeMinBytes=64M\nSizeMaxBytes=64M\n",
    );
    write(
        "20-root.conf",
        "Type=root-x86-64\nFormat=erofs\nCopyFiles=/:/\nLabel=foreign_7\nVerity=data\nVerityMatchKey=root\nMinimize=best\n",
    );
    write(
        "30-verity.conf",
        "Type=root-x86-64-verity\nLabel=foreign_7_verity\nVerity=hash\nVerityMatchKey=root\nMinimize=best\n",
    );
    let disk = scratch.join("foreign.raw");
    repart.args([
        "--empty=create",
        "--size=auto",
        "--dry-run=no",
        "--offline=yes",
        "--no-pager",
    ]);
    repart
        .arg(format!("--definitions={}", definitions.display()))
        .arg(format!("--root={}", tree.display()))
        .arg(&disk);
    let output = tool::output(&mut repart);
    if !output.status.success() {
        return tool::skipped(tool::Need::Host(&format!(
            "systemd-repart: {}",
            tool::lossy(&output.stderr)
        )));
    }
    let (said, differ) = inspect(&disk, &[]);
    // Its own tool made the tree; nothing is signed, and nothing starts it.
    assert!(
        said.contains("foreign_7_verity")
            && !differ.contains(&8)
            && !differ.contains(&3)
            && !differ.contains(&1),
        "{differ:?}: {said}"
    );
    assert!(
        differ.contains(&5) && differ.contains(&9) && differ.contains(&14),
        "{differ:?}: {said}"
    );
}

#[test]
fn damage_anywhere_ends_in_words() {
    let image = esp::signed().build();
    let scratch = Scratch::new("inspect-damage");
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let mut random = Random::new(3);
    let esp = alter::partition(&disk, "esp").start;
    // Partition table, boot sector, FATs, folders, programs' headers.
    let places = [
        (512, 20_000),
        (esp, 512),
        (esp + 32 * 512, 4096),
        (esp + 1_000_000, 200_000),
    ];
    let program = std::time::Instant::now();
    for round in 0..40 {
        let (start, length) = places[round % places.len()];
        let at = start + random.below(length);
        let before = alter::read(&disk, at, 16);
        alter::write(&disk, at, &random.next().to_le_bytes());
        let output = tool::output(builder().arg("inspect").arg(&disk).arg("--quiet"));
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "round {round}: {}: {}",
            output.status,
            tool::lossy(&output.stderr)
        );
        alter::write(&disk, at, &before);
    }
    assert!(program.elapsed().as_secs() < 300);
    for bad in [
        workspace().join("README.md"),
        PathBuf::from("/nowhere"),
        PathBuf::from("/dev/null"),
    ] {
        let output = tool::output(
            Command::new(&adamant_tests::image::programs().builder)
                .arg("inspect")
                .arg(&bad),
        );
        assert_eq!(output.status.code(), Some(1), "{}", bad.display());
    }
}
