//! The unified kernel image is what systemd's own tools take for one, and what they predict for a
//! TPM is what the manifest says.

use std::fs;
use std::path::PathBuf;

use adamant::sign::certificate::Certificate;
use adamant::sign::{KeySource, Signer, pcr};
use adamant::uki::{self, UkiParts, measure, pe::PeImage, profile};
use adamant_contract::hex;
use adamant_tests::image::{kernels, our_keys};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

const OS_RELEASE: &[u8] = b"ID=debian\nIMAGE_ID=web\nIMAGE_VERSION=1.0.0\n";
const CMDLINE: &str = "roothash=00 ro console=ttyS0";
const RELEASE: &str = "6.12.0-test";

/// Stub and kernel of a Debian suite.
fn programs(suite: &str) -> (Vec<u8>, Vec<u8>) {
    let dir = kernels(suite);
    let kernel: PathBuf = fs::read_dir(dir.join("kernel/boot"))
        .unwrap_or_else(|e| panic!("{e}"))
        .map(|entry| entry.unwrap_or_else(|e| panic!("{e}")).path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        })
        .unwrap_or_else(|| panic!("no kernel"));
    let read =
        |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (
        read(dir.join("boot/usr/lib/systemd/boot/efi/linuxx64.efi.stub")),
        read(kernel),
    )
}

fn compose(stub: &[u8], linux: &[u8], microcode: Option<&[u8]>) -> PeImage {
    let parts = UkiParts {
        stub,
        linux,
        initrd: b"initrd",
        cmdline: CMDLINE,
        os_release: OS_RELEASE,
        release: RELEASE,
        microcode,
        pcr_public_key: None,
        debug: None,
    };
    uki::compose(&parts).unwrap_or_else(|e| panic!("{e}"))
}

/// The sections that are measured, as systemd-measure wants them: a file each.
fn sections(image: &PeImage, scratch: &Scratch, command: &mut std::process::Command) {
    for section in image.sections() {
        let name = section.name.trim_start_matches('.');
        if [
            "linux", "osrel", "cmdline", "initrd", "ucode", "uname", "sbat",
        ]
        .contains(&name)
        {
            let file = scratch.join(name);
            fs::write(&file, section.data()).unwrap_or_else(|e| panic!("{e}"));
            command.arg(format!("--{name}={}", file.display()));
        }
    }
}

#[test]
fn systemd_predicts_the_same_values_of_pcr_11_for_every_phase() {
    let (stub, linux) = programs("trixie");
    let image = compose(&stub, &linux, Some(b"microcode"));
    let scratch = Scratch::new("measure");
    let Some(mut command) = tool::newer("/usr/lib/systemd/systemd-measure") else {
        return;
    };
    command.args(["calculate", "--bank=sha256"]);
    sections(&image, &scratch, &mut command);
    let phases = measure::phases(&image);
    for (path, _) in &phases {
        command.arg(format!(
            "--phase={}",
            if path.is_empty() { ":" } else { path }
        ));
    }
    let said = tool::run(&mut command);
    let predicted: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("11:sha256="))
        .collect();
    assert_eq!(
        predicted,
        phases
            .iter()
            .map(|(_, value)| hex::encode(value))
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_debug_profile_is_one_to_ukify_and_systemd_predicts_its_pcr_11_too() {
    let (stub, linux) = programs("trixie");
    let words = "roothash=0 systemd.log_level=debug";
    let parts = |stub| UkiParts {
        stub,
        linux: &linux,
        initrd: b"i",
        cmdline: CMDLINE,
        os_release: OS_RELEASE,
        release: RELEASE,
        microcode: None,
        pcr_public_key: None,
        debug: Some(words),
    };
    let mut image = uki::compose(&parts(&stub)).unwrap();
    profile::add_shared(&mut image, ".pcrsig", b"{}".to_vec()).unwrap();
    let names: Vec<&str> = image
        .sections()
        .iter()
        .map(|section| section.name.as_str())
        .collect();
    assert_eq!(
        names[names.len() - 5..],
        [".pcrsig", ".profile", ".profile", ".osrel", ".cmdline"]
    );
    let scratch = Scratch::new("profiles");
    let file = scratch.join("image.efi");
    fs::write(&file, image.write().unwrap()).unwrap();
    if let Some(mut ukify) = tool::newer("ukify") {
        let said = tool::run(ukify.arg("inspect").arg(&file));
        assert!(
            said.matches(".profile:").count() == 2
                && said.contains("ID=debug")
                && said.contains(words),
            "{said}"
        );
    }
    let Some(mut command) = tool::newer("/usr/lib/systemd/systemd-measure") else {
        return;
    };
    command.args(["calculate", "--bank=sha256", "--phase=:"]);
    for section in image.sections() {
        let name = section.name.trim_start_matches('.');
        // The last one of each name is the debug profile's.
        if [
            "linux", "osrel", "cmdline", "initrd", "uname", "sbat", "profile",
        ]
        .contains(&name)
        {
            fs::write(scratch.join(name), section.data()).unwrap();
        }
    }
    for name in [
        "linux", "osrel", "cmdline", "initrd", "uname", "sbat", "profile",
    ] {
        command.arg(format!("--{name}={}", scratch.join(name).display()));
    }
    let said = tool::run(&mut command);
    let debug = profile::debug_phases(&image).unwrap();
    assert!(
        said.contains(&format!("11:sha256={}", hex::encode(&debug[0].1))),
        "{said}"
    );
    // Older stubs know nothing of it.
    let refused = uki::compose(&parts(&programs("bookworm").0))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("does not support profiles"), "{refused}");
}

#[test]
fn systemd_signs_the_values_of_pcr_11_to_the_same_bytes() {
    let (stub, linux) = programs("trixie");
    let (dir, scratch) = (our_keys(), Scratch::new("pcr-signature"));
    let certificate = Certificate::read(&dir.join("pcr.crt")).unwrap();
    let signer = Signer::open(&KeySource::File(dir.join("pcr.key")), certificate).unwrap();
    let image = compose(&stub, &linux, None);
    let ours: serde_json::Value =
        serde_json::from_slice(&pcr::sign(&signer, &image).unwrap()).unwrap();
    let Some(mut command) = tool::newer("/usr/lib/systemd/systemd-measure") else {
        return;
    };
    command
        .args(["sign", "--bank=sha256"])
        .arg(format!("--private-key={}", dir.join("pcr.key").display()))
        .arg(format!("--public-key={}", dir.join("pcr.pub").display()));
    sections(&image, &scratch, &mut command);
    let phases = measure::phases(&image);
    // While the system runs: not before the first phase, and not at its end.
    for (path, _) in phases
        .iter()
        .filter(|(path, _)| !path.is_empty() && !path.ends_with("shutdown"))
    {
        command.arg(format!("--phase={path}"));
    }
    let theirs: serde_json::Value = serde_json::from_str(&tool::run(&mut command)).unwrap();
    assert_eq!(ours, theirs);
}

#[test]
fn ukify_and_bootctl_read_it_with_the_stubs_of_two_debians() {
    let scratch = Scratch::new("uki");
    for suite in ["trixie", "bookworm"] {
        let (stub, linux) = programs(suite);
        let image = compose(&stub, &linux, None);
        let bytes = image.write().unwrap();
        assert_eq!(
            bytes,
            compose(&stub, &linux, None).write().unwrap(),
            "the same every time"
        );
        for pair in PeImage::parse("again", &bytes)
            .unwrap()
            .sections()
            .windows(2)
        {
            assert!(
                pair[0].address + pair[0].virtual_size <= pair[1].address,
                "{suite}: {} overlaps {}",
                pair[0].name,
                pair[1].name
            );
        }
        let file = scratch.join(format!("{suite}.efi"));
        fs::write(&file, &bytes).unwrap();
        let (Some(mut ukify), Some(mut bootctl)) = (tool::newer("ukify"), tool::newer("bootctl"))
        else {
            return;
        };
        let said: serde_json::Value = serde_json::from_str(&tool::run(
            ukify.args(["--json=short", "inspect"]).arg(&file),
        ))
        .unwrap();
        assert_eq!(said[".cmdline"]["text"], CMDLINE);
        assert_eq!(said[".uname"]["text"], RELEASE);
        assert_eq!(
            said[".osrel"]["text"].as_str().unwrap().as_bytes(),
            OS_RELEASE
        );
        assert_eq!(
            said[".linux"]["sha256"],
            hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(&linux))
        );
        assert_eq!(
            tool::run(bootctl.arg("kernel-identify").arg(&file)).trim(),
            "uki"
        );
    }
}

#[test]
fn what_is_no_stub_or_no_kernel_is_refused() {
    let (stub, linux) = programs("trixie");
    let parts = |stub, linux| UkiParts {
        stub,
        linux,
        initrd: b"i",
        cmdline: "",
        os_release: b"",
        release: "",
        microcode: None,
        pcr_public_key: None,
        debug: None,
    };
    let whole = compose(&stub, &linux, None).write().unwrap();
    for (stub, linux, why) in [
        (&b"MZ"[..], &linux[..], "the stub: not an EFI program"),
        (&linux, &linux, "does not name systemd-stub"),
        (&whole, &linux, "it holds a kernel already"),
        (
            &stub,
            b"\x1f\x8b compressed",
            "the kernel: not an EFI program",
        ),
        (&stub[..stub.len() / 2], &linux, "ends after the file's end"),
    ] {
        let refused = uki::compose(&parts(stub, linux)).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    // Cut or altered anywhere in its headers, a program is refused or read, never more.
    for cut in 0..1024 {
        let _ = PeImage::parse("cut", &stub[..cut]);
        let mut altered = stub.clone();
        altered[cut] ^= 0xff;
        let _ = PeImage::parse("altered", &altered).map(|image| image.write());
    }
}
