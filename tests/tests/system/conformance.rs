//! The disk that firmware starts, read and checked by programs of other projects that know nothing
//! of us; and each of them notices when what it checks is not so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adamant_contract::root_hash::RootHash;
use adamant_tests::esp::{self, Esp};
use adamant_tests::image::{Image, build_command, our_keys};
use adamant_tests::scratch::Scratch;
use adamant_tests::{alter, tool};

/// What a consumer may ask of a disk: a root that is signed, verified and read-only, and nothing
/// else that is used.
const POLICY: &str = "--image-policy=root=signed+read-only-on:=unused+absent";
const ROOT: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
const VERITY: &str = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5";
const SIGNATURE: &str = "41092b05-9fc8-4523-994f-2def0408b176";
/// Our own: docs/formats.md.
const BLACK_BOX: &str = "8f4a6b1e-0c35-4d27-9bd8-61f2a73e5c90";

fn image() -> Image {
    esp::signed().build()
}

/// sfdisk's table: for each partition type, PARTUUID, label and bits.
fn table(disk: &Path) -> Vec<[String; 4]> {
    let text = tool::run(tool::command("sfdisk").arg("-J").arg(disk));
    let json: serde_json::Value = serde_json::from_str(&text).expect("sfdisk's JSON");
    let row = |part: &serde_json::Value| {
        ["type", "uuid", "name", "attrs"]
            .map(|key| part[key].as_str().unwrap_or_default().to_lowercase())
    };
    json["partitiontable"]["partitions"]
        .as_array()
        .expect("sfdisk's JSON")
        .iter()
        .map(row)
        .collect()
}

/// A partition's bytes as a file of its own.
fn extract(disk: &Path, kind: &str, scratch: &Scratch) -> PathBuf {
    let part = alter::partitions(disk)
        .into_iter()
        .find(|part| part.kind == kind)
        .unwrap_or_else(|| panic!("no partition of type {kind}"));
    let file = scratch.join(format!("partition-{}", part.number));
    fs::write(&file, alter::read(disk, part.start, part.size as usize))
        .expect("room for a partition");
    file
}

fn succeeds(command: &mut Command) -> bool {
    tool::output(command).status.success()
}

#[test]
fn the_table_has_the_types_bits_labels_and_names_of_the_specification() {
    let image = image();
    let disk = image.path("raw");
    assert!(
        tool::run(tool::command("sfdisk").arg("--verify").arg(&disk))
            .contains("No errors detected")
    );
    let parts = alter::partitions(&disk);
    assert_eq!(parts[0].start, 1 << 20);
    assert!(
        parts
            .iter()
            .all(|part| part.start % 4096 == 0 && part.size % 4096 == 0),
        "{parts:?}"
    );
    let hash = image.root_hash();
    let uuid = |hex: &str| {
        [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..32],
        ]
        .join("-")
    };
    let rows = table(&disk);
    let seen: Vec<[&str; 3]> = rows
        .iter()
        .map(|[kind, _, name, bits]| [&kind[..], &name[..], &bits[..]])
        .collect();
    let (verity, signature) = (
        format!("{}_verity", image.stem),
        format!("{}_sig", image.stem),
    );
    assert_eq!(
        seen,
        [
            ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "esp", ""],
            [ROOT, &image.stem, "guid:60"],
            [VERITY, &verity, "guid:60"],
            [SIGNATURE, &signature, "guid:60"],
            [ROOT, "_empty", "guid:60,63"],
            [VERITY, "_empty", "guid:60,63"],
            [SIGNATURE, "_empty", "guid:60,63"],
            [BLACK_BOX, "black-box", "guid:63"],
            ["0fc63daf-8483-4772-8e79-3d69d8477de4", "logs", "guid:49,63"],
            [
                "4d21b016-b534-45c2-a9fb-5c16e091fd2d",
                "state",
                "guid:49,63"
            ],
        ]
    );
    assert_eq!(
        [&rows[1][1], &rows[2][1]],
        [&uuid(&hash[..32]), &uuid(&hash[32..])]
    );
}

#[test]
fn sfdisk_notices_a_table_whose_second_copy_is_not_where_it_should_be() {
    let (image, scratch) = (image(), Scratch::new("no-backup"));
    let disk = esp::copy(&image, &scratch);
    alter::resize(&disk, fs::metadata(&disk).unwrap().len() + (4 << 20));
    let said = tool::output(tool::command("sfdisk").arg("--verify").arg(&disk));
    assert!(
        !tool::lossy(&said.stdout).contains("No errors detected"),
        "{said:?}"
    );
}

#[test]
fn systemd_takes_the_disk_under_the_strictest_policy_and_refuses_it_with_one_flag_off() {
    let (image, scratch) = (image(), Scratch::new("policy"));
    let disk = scratch.join("disk.raw");
    // Gives what it said when it refuses.
    let validate = |words: &[&str], change: &mut dyn FnMut(&Path)| -> Option<Result<(), String>> {
        alter::copy(&image.path("raw"), &disk);
        change(&disk);
        let output = tool::output(
            tool::newer("systemd-dissect")?
                .arg("--validate")
                .args(words)
                .arg(&disk),
        );
        Some(if output.status.success() {
            Ok(())
        } else {
            Err(tool::lossy(&output.stderr))
        })
    };
    let sfdisk = |words: &'static [&'static str]| {
        move |disk: &Path| {
            tool::run(
                tool::command("sfdisk")
                    .arg("-q")
                    .arg(words[0])
                    .arg(disk)
                    .args(&words[1..]),
            );
        }
    };
    let Some(good) = validate(&[POLICY], &mut |_| ()) else {
        return;
    };
    assert_eq!(good, Ok(()));
    for (name, change) in [
        ("the signature's bit 60", &["--part-attrs", "4", ""][..]),
        ("the root's bit 60", &["--part-attrs", "2", ""]),
        (
            "the signature's type",
            &["--part-type", "4", "0fc63daf-8483-4772-8e79-3d69d8477de4"],
        ),
        (
            "the tree's type",
            &["--part-type", "3", "0fc63daf-8483-4772-8e79-3d69d8477de4"],
        ),
        ("the signature's partition", &["--delete", "4"]),
    ] {
        assert!(
            matches!(validate(&[POLICY], &mut sfdisk(change)), Some(Err(_))),
            "{name}"
        );
    }
    let hash = format!("--root-hash={}", image.root_hash());
    assert_eq!(validate(&[&hash], &mut |_| ()), Some(Ok(())));
    let wrong = format!("--root-hash={}", RootHash([0xa5; 32]));
    assert!(matches!(validate(&[&wrong], &mut |_| ()), Some(Err(_))));
    // It reads the table alone: damage to the data is veritysetup's to find, and the kernel's.
    assert_eq!(
        validate(&[POLICY], &mut |disk| alter::flip(
            disk,
            alter::root(disk).start + (8 << 20)
        )),
        Some(Ok(()))
    );
}

#[test]
fn systemd_finds_one_signed_root_and_reads_which_image_it_is() {
    if !tool::root() {
        return;
    }
    let image = image();
    // This Debian's and a newer one's.
    let own = tool::have("systemd-dissect").then(|| tool::command("systemd-dissect"));
    for dissect in [own, tool::newer("systemd-dissect")].into_iter().flatten() {
        finds_one_signed_root(dissect, &image);
    }
}

fn finds_one_signed_root(mut dissect: Command, image: &Image) {
    let output = tool::output(dissect.arg("--json=short").arg(image.path("raw")));
    if !output.status.success() {
        // It mounts the root, which takes loop devices and a kernel with EROFS.
        return tool::skipped(tool::Need::Host(&format!(
            "systemd-dissect can't mount here: {}",
            tool::lossy(&output.stderr).trim()
        )));
    }
    let said: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("systemd-dissect's JSON");
    let release = said["osRelease"].as_array().expect("an os-release");
    assert!(
        release.iter().any(|line| line == "IMAGE_ID=tiny")
            && release.iter().any(|line| line == "IMAGE_VERSION=1"),
        "{said}"
    );
    let mounts = said["mounts"].as_array().expect("mounts");
    let of = |designator: &str| {
        mounts
            .iter()
            .filter(|mount| mount["designator"] == designator)
            .collect::<Vec<_>>()
    };
    for designator in ["root", "root-verity", "root-verity-sig", "esp"] {
        assert_eq!(of(designator).len(), 1, "{designator}: {said}");
    }
    assert_eq!(
        (&of("root")[0]["verity"], &of("root")[0]["partition_label"]),
        (&"signed".into(), &image.stem.as_str().into())
    );
    assert_eq!(mounts.len(), 4, "nothing else: {said}");
}

#[test]
fn systemd_sysupdate_sees_the_version_that_is_installed_and_an_empty_slot_for_the_next() {
    if !tool::root() {
        return;
    }
    let (image, scratch) = (image(), Scratch::new("sysupdate"));
    let Some(mut sysupdate) = tool::newer("/usr/lib/systemd/systemd-sysupdate") else {
        return;
    };
    let disk = esp::copy(&image, &scratch);
    let device = tool::output(
        tool::command("losetup")
            .args(["--find", "--show", "--partscan", "--read-only"])
            .arg(&disk),
    );
    if !device.status.success() {
        return tool::skipped(tool::Need::Host("no loop device"));
    }
    let device = tool::lossy(&device.stdout).trim().to_owned();
    fs::write(scratch.join("tiny_2.root.erofs"), "").unwrap();
    let folder = scratch.join("sysupdate.d");
    fs::create_dir(&folder).unwrap();
    let source = format!(
        "[Source]\nType=regular-file\nPath={}\nMatchPattern=tiny_@v.root.erofs\n",
        scratch.path().display()
    );
    let target = format!(
        "[Target]\nType=partition\nPath={device}\nMatchPattern=tiny_@v\nMatchPartitionType=root\nInstancesMax=2\n"
    );
    fs::write(
        folder.join("50-root.transfer"),
        format!("[Transfer]\nVerify=no\n{source}{target}"),
    )
    .unwrap();
    let output = tool::output(
        sysupdate
            .arg(format!("--definitions={}", folder.display()))
            .args(["--no-pager", "list"]),
    );
    tool::run(tool::command("losetup").arg("--detach").arg(&device));
    let said = tool::lossy(&output.stdout);
    let line = |version: &str| {
        said.lines()
            .find(|line| line.split_whitespace().nth(1) == Some(version))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        line("1").contains("current") && line("2").contains("candidate"),
        "{said}{}",
        tool::lossy(&output.stderr)
    );
}

#[test]
fn systemd_repart_finds_all_its_partitions_there_and_nothing_to_change() {
    let image = image();
    let (scratch, disk) = (Scratch::new("repart"), image.path("raw"));
    let kinds = [
        "esp",
        "root-x86-64",
        "root-x86-64-verity",
        "root-x86-64-verity-sig",
        "root-x86-64",
        "root-x86-64-verity",
        "root-x86-64-verity-sig",
        BLACK_BOX,
        "linux-generic",
        "var",
    ];
    let parts = alter::partitions(&disk);
    assert_eq!(parts.len(), kinds.len());
    for (number, (kind, part)) in kinds.iter().zip(&parts).enumerate() {
        let text = format!(
            "[Partition]\nType={kind}\nSizeMinBytes={0}\nSizeMaxBytes={0}\n",
            part.size
        );
        fs::write(scratch.join(format!("{number}-{kind}.conf")), text).unwrap();
    }
    let Some(mut repart) = tool::newer("systemd-repart") else {
        return;
    };
    repart
        .args(["--dry-run=yes", "--offline=yes", "--no-pager"])
        .arg(format!("--definitions={}", scratch.path().display()))
        .arg(&disk);
    let output = tool::output(&mut repart);
    let said = tool::lossy(&output.stdout) + &tool::lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("No changes"),
        "{said}"
    );
}

#[test]
fn veritysetup_verifies_the_partitions_and_notices_one_changed_byte() {
    let (image, scratch) = (image(), Scratch::new("verity-partitions"));
    let disk = esp::copy(&image, &scratch);
    let verify = || {
        let (data, tree) = (
            extract(&disk, ROOT, &scratch),
            extract(&disk, VERITY, &scratch),
        );
        succeeds(
            tool::command("veritysetup")
                .arg("verify")
                .args([&data, &tree])
                .arg(image.root_hash()),
        )
    };
    assert!(verify());
    for at in [
        alter::root(&disk).start + 5_000_000,
        alter::verity(&disk).start + 4096 + 7,
    ] {
        alter::flip(&disk, at);
        assert!(!verify(), "{at}");
        alter::flip(&disk, at);
    }
    assert!(verify());
}

#[test]
fn openssl_verifies_what_the_signature_partition_holds() {
    let (image, scratch) = (image(), Scratch::new("signature-partition"));
    let bytes = fs::read(extract(&image.path("raw"), SIGNATURE, &scratch)).unwrap();
    assert!(bytes.len().is_multiple_of(4096) && bytes.len() <= 4 << 20);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap();
    assert!(bytes[end..].iter().all(|byte| *byte == 0));
    let json: serde_json::Value = serde_json::from_slice(&bytes[..end]).unwrap();
    assert_eq!(json["rootHash"], image.root_hash());
    let certificate = our_keys().join("verity.crt");
    let fingerprint = tool::run(
        tool::command("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(&certificate),
    );
    let fingerprint = fingerprint
        .trim()
        .rsplit('=')
        .next()
        .unwrap_or_default()
        .replace(':', "")
        .to_lowercase();
    assert_eq!(json["certificateFingerprint"], fingerprint);
    let (encoded, signature) = (
        scratch.join("signature.base64"),
        scratch.join("signature.der"),
    );
    fs::write(&encoded, json["signature"].as_str().unwrap()).unwrap();
    tool::run(
        tool::command("openssl")
            .args(["base64", "-d", "-A", "-in"])
            .arg(&encoded)
            .arg("-out")
            .arg(&signature),
    );
    assert!(fs::read(&signature).unwrap() == fs::read(image.path("roothash.p7s")).unwrap());
    let verify = |hash: &str, certificate: &str| {
        let content = scratch.join("content");
        fs::write(&content, hash).unwrap();
        let mut command = tool::command("openssl");
        command
            .args([
                "cms",
                "-verify",
                "-binary",
                "-inform",
                "DER",
                "-noverify",
                "-nointern",
                "-in",
            ])
            .arg(&signature);
        succeeds(
            command
                .arg("-content")
                .arg(&content)
                .arg("-certfile")
                .arg(our_keys().join(certificate)),
        )
    };
    assert!(verify(&image.root_hash(), "verity.crt"));
    assert!(
        !verify(&RootHash([0xa5; 32]).to_string(), "verity.crt")
            && !verify(&image.root_hash(), "pcr.crt")
    );
}

#[test]
fn the_esp_is_a_clean_fat_whose_programs_are_signed_and_whose_image_counts_its_tries() {
    if !["fsck.vfat", "mdir", "sbverify"]
        .into_iter()
        .all(tool::have)
    {
        return;
    }
    let (image, scratch) = (image(), Scratch::new("esp"));
    let disk = esp::copy(&image, &scratch);
    let fsck = || {
        let file = extract(&disk, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", &scratch);
        succeeds(tool::command("fsck.vfat").arg("-n").arg(&file))
    };
    assert!(fsck());
    let esp = Esp::of(&disk);
    let name = format!("/EFI/Linux/{}+3-0.efi", image.stem);
    assert_eq!(esp.image(), name);
    let attributes = esp.attributes(&name);
    assert!(
        !attributes.contains('R'),
        "the loader can't rename what is read-only: {attributes}"
    );
    assert!(
        !String::from_utf8(esp.read("/loader/loader.conf"))
            .unwrap()
            .contains("default")
    );
    for (path, artifact) in [(&name[..], "efi"), ("/EFI/BOOT/BOOTX64.EFI", "loader.efi")] {
        let bytes = esp.read(path);
        assert!(bytes == fs::read(image.path(artifact)).unwrap(), "{path}");
        let file = scratch.join("program.efi");
        let verify = |bytes: &[u8], certificate: &str| {
            fs::write(&file, bytes).unwrap();
            succeeds(
                tool::command("sbverify")
                    .arg("--cert")
                    .arg(our_keys().join(certificate))
                    .arg(&file),
            )
        };
        assert!(
            verify(&bytes, "secure-boot.crt") && !verify(&bytes, "verity.crt"),
            "{path}"
        );
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        assert!(!verify(&changed, "secure-boot.crt"), "{path}");
    }
    // The second FAT is not the first one any more.
    alter::flip(&disk, alter::partition(&disk, "esp").start + 32 * 512 + 9);
    assert!(!fsck());
}

#[test]
fn two_builds_in_different_places_give_the_same_disk_and_the_same_signed_image() {
    let scratch = Scratch::new("signed-twice");
    let out = |name: &str, zone: &str| {
        let definition = esp::signed().define(&scratch.join(name));
        let out = scratch.join(name).join("out");
        tool::run(
            build_command(&definition, &out)
                .env("TZ", zone)
                .args(["--jobs", if name == "first" { "1" } else { "3" }]),
        );
        out
    };
    let (first, second) = (out("first", "UTC"), out("second", "Pacific/Chatham"));
    for entry in fs::read_dir(&first).unwrap() {
        let name = entry.unwrap().file_name();
        tool::run(tool::command("cmp").args([first.join(&name), second.join(&name)]));
    }
}
