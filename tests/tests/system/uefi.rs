//! Firmware starts what was signed with the user's keys, and nothing that was altered on the way:
//! firmware, boot loader, kernel, its command line, initramfs and root hash are one chain.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adamant::sign::authenticode;
use adamant::sign::certificate::Certificate;
use adamant_tests::esp::{self, Esp};
use adamant_tests::image::{self, Image, Tiny, other_keys, our_keys};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::{alter, tool};

/// Firmware, boot loader and stub come before the kernel, all emulated.
const DEADLINE: Duration = Duration::from_secs(420);

/// The certificate that firmware trusts.
fn trusted() -> Vec<u8> {
    Certificate::read(&our_keys().join("secure-boot.crt"))
        .expect("our certificate")
        .der()
        .to_vec()
}

fn installed() -> bool {
    let there = Path::new("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd").exists();
    if !there {
        tool::skipped(tool::Need::Program("OVMF_CODE_4M.fd (ovmf)"));
    }
    there && tool::have("mcopy")
}

/// `adamant boot OUT` with these words; its console, whether it ended well, and what it said.
fn boot(out: &Path, words: &[&str], scratch: &Scratch) -> (String, bool, String) {
    let console = scratch.join("console");
    let output = tool::output(
        image::builder()
            .arg("boot")
            .arg(out)
            .args([
                "--accel",
                "tcg",
                "--memory",
                "512M",
                "--timeout",
                "420s",
                "--console",
            ])
            .arg(&console)
            .args(words),
    );
    (
        fs::read(&console)
            .map(|bytes| tool::lossy(&bytes))
            .unwrap_or_default(),
        output.status.success(),
        tool::lossy(&output.stderr),
    )
}

fn line<'a>(console: &'a str, start: &str) -> &'a str {
    console
        .lines()
        .map(str::trim_end)
        .find(|line| line.starts_with(start))
        .unwrap_or_else(|| panic!("no line {start:?} in\n{console}"))
}

/// Links to all artifacts of an image but one, which gets other bytes.
fn with_artifact(image: &Image, artifact: &str, bytes: &[u8], scratch: &Scratch) -> PathBuf {
    let out = scratch.join("out");
    fs::create_dir(&out).expect("a copy of the artifacts");
    for entry in fs::read_dir(&image.dir).expect("a copy of the artifacts") {
        let path = entry.expect("a copy of the artifacts").path();
        std::os::unix::fs::symlink(
            &path,
            out.join(path.file_name().expect("a copy of the artifacts")),
        )
        .expect("a copy of the artifacts");
    }
    let file = out.join(
        image
            .path(artifact)
            .file_name()
            .expect("a copy of the artifacts"),
    );
    fs::remove_file(&file).expect("a copy of the artifacts");
    fs::write(&file, bytes).expect("a copy of the artifacts");
    out
}

#[test]
fn with_secure_boot_the_signed_image_starts_and_the_tpm_holds_what_the_manifest_predicts() {
    if !installed() || !tool::have("swtpm") {
        return;
    }
    let (image, scratch) = (esp::signed().build(), Scratch::new("secure-boot"));
    let (console, ended, said) = boot(&image.dir, &["--secure-boot", "--tpm"], &scratch);
    assert!(ended, "{said}\n{console}");
    assert!(console.contains("Secure boot enabled"), "{console}");
    assert!(console.contains("tiny: done"), "{console}");
    assert_eq!(
        line(&console, "tiny: root hash "),
        format!("tiny: root hash {}", image.root_hash())
    );
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(image.path("manifest.json")).unwrap()).unwrap();
    // The stub measured the image, and the agent the phases that it went through.
    let predicted = manifest["pcr11"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["phases"] == "enter-initrd:leave-initrd")
        .unwrap();
    assert_eq!(
        line(&console, "tiny: firmware "),
        "tiny: firmware uefi, secure boot Some(true), phases enter-initrd leave-initrd"
    );
    assert_eq!(
        line(&console, "tiny: pcr 11 "),
        format!("tiny: pcr 11 {}", predicted["sha256"].as_str().unwrap())
    );
}

#[test]
fn a_verity_certificate_that_firmware_trusts_makes_the_kernel_verify_the_root_hash_s_signature_too()
{
    if !installed() {
        return;
    }
    let (key, certificate) = (
        our_keys().join("secure-boot.key"),
        our_keys().join("secure-boot.crt"),
    );
    let same_key = format!("verity = {{ key = {key:?}, certificate = {certificate:?} }}\n[disk]");
    let (mut tiny, scratch) = (esp::signed(), Scratch::new("kernel-verifies"));
    tiny.more = tiny.more.replacen("[disk]", &same_key, 1);
    let (console, ended, said) = boot(&tiny.build().dir, &["--secure-boot"], &scratch);
    assert!(ended && console.contains("tiny: done"), "{said}\n{console}");
    assert_eq!(
        line(&console, "tiny: kernel on the signature: "),
        "tiny: kernel on the signature: verified"
    );
}

#[test]
fn without_secure_boot_firmware_starts_it_too_and_words_are_added_to_the_command_line() {
    if !installed() {
        return;
    }
    let (image, scratch) = (esp::signed().build(), Scratch::new("uefi"));
    let (console, ended, said) = boot(
        &image.dir,
        &["--uefi", "--append", "tiny.read-all"],
        &scratch,
    );
    assert!(ended, "{said}\n{console}");
    assert!(
        !console.contains("Secure boot enabled") && console.contains("tiny: read-all : "),
        "{console}"
    );
}

#[test]
fn what_firmware_would_not_start_is_refused_before_it_tries() {
    if !installed() || !tool::have("sbattach") {
        return;
    }
    let (image, scratch) = (esp::signed().build(), Scratch::new("uefi-refused"));
    let refused = |out: &Path, words: &[&str], why: &str| {
        let (_, ended, said) = boot(out, words, &scratch);
        assert!(!ended && said.contains(why), "{words:?}: {said}");
    };
    refused(
        &Tiny::usual().build().dir,
        &["--uefi"],
        "no boot loader and no unified kernel image",
    );
    refused(
        &image.dir,
        &["--secure-boot", "--append", "x"],
        "--append: with Secure Boot",
    );
    refused(
        &image.dir,
        &["--secure-boot", "--certificate", "/nowhere"],
        "/nowhere",
    );
    let unsigned = scratch.join("unsigned.efi");
    fs::copy(image.path("efi"), &unsigned).unwrap();
    tool::run(tool::command("sbattach").arg("--remove").arg(&unsigned));
    refused(
        &with_artifact(&image, "efi", &fs::read(&unsigned).unwrap(), &scratch),
        &["--secure-boot"],
        "not signed",
    );
}

/// Starts the disk with Secure Boot, sees who refuses what, and that nothing of the image ran.
fn is_refused(
    name: &str,
    image: &Image,
    disk: &Path,
    certificate: &[u8],
    by: &str,
    scratch: &Scratch,
) {
    let mut machine = Setup::of(image)
        .firmware(Some(certificate))
        .disk(disk)
        .deadline(DEADLINE)
        .start(scratch);
    let line = machine.wait_for(by);
    assert!(
        line.to_lowercase().contains("access denied"),
        "{name}: {line}"
    );
    // What it does instead: it waits, or goes back to firmware's menu.
    let seen = machine.age();
    machine.run_for(seen + Duration::from_secs(8));
    let console = machine.cut_power();
    assert!(
        !console.contains("Linux version")
            && !console.contains("adamant: ")
            && !console.contains("tiny: "),
        "{name}: {console}"
    );
}

#[test]
fn with_secure_boot_an_image_with_one_changed_byte_or_another_s_signature_does_not_start() {
    if !installed() {
        return;
    }
    let image = esp::signed().build();
    let original = fs::read(image.path("efi")).unwrap();
    let mut changed = original.clone();
    changed[original.len() / 2] ^= 1;
    let by_another = authenticode::sign(
        &esp::signer(&other_keys(), "secure-boot"),
        "image",
        &original,
    )
    .unwrap();
    for (name, bytes) in [
        ("one changed byte", changed),
        ("another's signature", by_another),
    ] {
        let scratch = Scratch::new("uefi-altered");
        let disk = esp::copy(&image, &scratch);
        let esp = Esp::of(&disk);
        esp.write(&esp.image(), &bytes, &scratch);
        is_refused(
            name,
            &image,
            &disk,
            &trusted(),
            "Error loading \\EFI\\Linux\\",
            &scratch,
        );
    }
}

#[test]
fn with_secure_boot_and_another_owner_s_keys_not_even_the_boot_loader_starts() {
    if !installed() {
        return;
    }
    let (image, scratch) = (esp::signed().build(), Scratch::new("uefi-other-owner"));
    let disk = esp::copy(&image, &scratch);
    let other = Certificate::read(&other_keys().join("secure-boot.crt")).unwrap();
    is_refused(
        "another owner",
        &image,
        &disk,
        other.der(),
        "BdsDxe: failed to load Boot0001",
        &scratch,
    );
}

#[test]
fn with_secure_boot_the_disk_can_t_change_the_command_line_and_without_it_can() {
    if !installed() {
        return;
    }
    let image = esp::signed().build();
    for secure in [true, false] {
        let scratch = Scratch::new("uefi-cmdline");
        let disk = esp::copy(&image, &scratch);
        let esp = Esp::of(&disk);
        esp.make("/loader/entries");
        let name = esp.image();
        let entry = format!(
            "title evil\nversion 2\nefi {name}\noptions {} tiny.read-all\n",
            image.cmdline()
        );
        esp.write("/loader/entries/evil.conf", entry.as_bytes(), &scratch);
        esp.write(
            "/loader/loader.conf",
            b"timeout 0\ndefault evil.conf\n",
            &scratch,
        );
        let certificate = trusted();
        let setup = Setup::of(&image)
            .firmware(secure.then_some(&certificate[..]))
            .disk(&disk)
            .deadline(DEADLINE);
        let mut machine = setup.start(&scratch);
        machine.wait_for("tiny: done");
        let console = machine.wait_for_end();
        assert_eq!(console.contains("tiny: read-all : "), !secure, "{console}");
        // The entry was the one that was started: the image's own would have counted its tries.
        assert_eq!(esp.image(), name);
    }
}

#[test]
fn with_secure_boot_words_that_the_host_adds_to_the_command_line_make_the_image_refuse() {
    if !installed() {
        return;
    }
    let image = esp::signed().build();
    for secure in [true, false] {
        let scratch = Scratch::new("host-words");
        let disk = esp::copy(&image, &scratch);
        let certificate = trusted();
        let setup = Setup::of(&image)
            .firmware(secure.then_some(&certificate[..]))
            .disk(&disk)
            .deadline(DEADLINE);
        // The stub adds them in both cases.
        let setup = setup.arguments(&[
            "-smbios",
            "type=11,value=io.systemd.stub.kernel-cmdline-extra=tiny.read=/etc/os-release",
        ]);
        let console = setup.start(&scratch).wait_for_end();
        assert_eq!(
            console.contains("adamant: early: kernel command line: Secure Boot is on, and it has arguments that are not in the signed image"),
            secure,
            "{console}"
        );
        assert_eq!(console.contains("tiny: done"), !secure, "{console}");
    }
}

#[test]
fn the_debug_profile_is_started_when_it_is_chosen_and_not_otherwise() {
    if !installed() {
        return;
    }
    let mut tiny = esp::signed();
    tiny.more = tiny
        .more
        .replacen("[boot]\n", "[boot]\ndebug = \"tiny.read-all\"\n", 1);
    let image = tiny.build();
    for chosen in [false, true] {
        let scratch = Scratch::new("profiles");
        let disk = esp::copy(&image, &scratch);
        if chosen {
            // An image that was found good: with its tries in its name, systemd-boot 257 gives both
            // profiles one id.
            Esp::of(&disk).rename(&Esp::of(&disk).image(), &format!("{}.efi", image.stem));
            Esp::of(&disk).write(
                "/loader/loader.conf",
                b"timeout 0\ndefault *@debug\n",
                &scratch,
            );
        }
        let mut machine = Setup::of(&image)
            .firmware(Some(&trusted()))
            .disk(&disk)
            .deadline(DEADLINE)
            .start(&scratch);
        machine.wait_for("tiny: done");
        let console = machine.wait_for_end();
        assert_eq!(console.contains("tiny: read-all : "), chosen, "{console}");
        assert_eq!(Esp::of(&disk).image().ends_with("+2-1.efi"), !chosen);
    }
}

#[test]
fn each_start_costs_the_image_one_of_its_tries() {
    if !installed() {
        return;
    }
    let (image, scratch) = (esp::signed().build(), Scratch::new("boot-counting"));
    let disk = esp::copy(&image, &scratch);
    let esp = Esp::of(&disk);
    let name = |tries: &str| format!("/EFI/Linux/{}+{tries}.efi", image.stem);
    assert_eq!(esp.image(), name("3-0"));
    let before = alter::partition(&disk, "esp");
    let mut machine = Setup::of(&image)
        .firmware(None)
        .disk(&disk)
        .deadline(DEADLINE)
        .start(&scratch);
    machine.wait_for("tiny: done");
    machine.wait_for_end();
    assert_eq!(esp.image(), name("2-1"));
    assert!(esp.read(&name("2-1")) == fs::read(image.path("efi")).unwrap());
    assert_eq!(alter::partition(&disk, "esp").start, before.start);
}

#[test]
#[ignore = "long: two starts by firmware"]
fn a_persisted_machine_starts_the_version_that_was_written_into_it() {
    if !installed() {
        return;
    }
    let (first, scratch) = (esp::signed().build(), Scratch::new("uefi-persist"));
    let second = Tiny {
        version: "2".to_owned(),
        ..esp::signed()
    }
    .build();
    let start = |image: &Image| {
        let console = scratch.join("console");
        let mut command = image::builder();
        command
            .env("XDG_STATE_HOME", scratch.join("state"))
            .arg("boot")
            .arg(&image.dir)
            .args(["--uefi", "--persist", "--accel", "tcg"]);
        let output = tool::output(
            command
                .args(["--memory", "512M", "--timeout", "420s", "--console"])
                .arg(&console),
        );
        (
            output.status.code(),
            tool::lossy(&fs::read(&console).unwrap_or_default()),
            tool::lossy(&output.stderr),
        )
    };
    for (image, counter) in [(&first, 1), (&second, 2)] {
        let (code, console, said) = start(image);
        assert_eq!(code, Some(0), "{said}\n{console}");
        assert_eq!(
            line(&console, "tiny: root hash "),
            format!("tiny: root hash {}", image.root_hash()),
            "{said}"
        );
        assert_eq!(
            line(&console, "tiny: counter "),
            format!("tiny: counter {counter}"),
            "{said}"
        );
    }
    let disk = scratch.join("state/adamant/tiny/disk.raw");
    let said = tool::run(image::builder().arg("verify").arg(&disk));
    assert!(
        said.contains("tiny_1: OK") && said.contains("tiny_2: OK"),
        "{said}"
    );
}
