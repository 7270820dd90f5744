//! Machine images that cannot be built: each is refused with a reason and a remedy, and OUT stays
//! empty.

use std::fs;
use std::path::Path;

use adamant_tests::esp;
use adamant_tests::image::{Tiny, build_command, kernels, other_keys, our_keys};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// Builds what the text makes of the definition, and gives what the builder said when it refused.
fn refused(name: &str, tiny: &Tiny, change: impl FnOnce(String, &Path) -> String) -> String {
    let scratch = Scratch::new("impossible");
    let definition = tiny.define(&scratch.join("definition"));
    let text = fs::read_to_string(&definition).expect("the definition");
    let changed = change(text.clone(), scratch.path());
    assert!(changed != text, "{name}: the definition was not changed");
    fs::write(&definition, changed).expect("the definition");
    let out = scratch.join("definition/out");
    let output = tool::output(&mut build_command(&definition, &out));
    let said = tool::lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{name}: {said}");
    assert!(!out.exists(), "{name}: it left {}", out.display());
    println!("--- {name}\n{said}");
    said
}

#[test]
fn machine_images_that_can_t_be_are_refused_with_the_way_out() {
    let usual = esp::signed();
    let boot = kernels("trixie").join("boot/usr/lib/systemd/boot/efi");
    let (stub, loader) = (
        format!("{:?}", boot.join("linuxx64.efi.stub")),
        format!("{:?}", boot.join("systemd-bootx64.efi")),
    );
    let replaced = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |text: String, _: &Path| text.replacen(&from, &to, 1)
    };
    let with_disk = |line: &str| replaced("[disk]\n", &format!("[disk]\n{line}\n"));
    for (name, said, words) in [
        (
            "no room on the ESP",
            refused("no room on the ESP", &usual, |text, scratch| {
                let kernel = find_kernel(&scratch.join("definition/input/kernel"));
                // Signatures must be at its end.
                tool::run(tool::command("sbattach").arg("--remove").arg(&kernel));
                let kernel = fs::OpenOptions::new().write(true).open(&kernel).unwrap();
                kernel
                    .set_len(kernel.metadata().unwrap().len() + (64 << 20))
                    .unwrap();
                text + "# changed\n"
            }),
            &["esp", "larger"][..],
        ),
        (
            "an ESP too small for FAT32",
            refused(
                "an ESP too small for FAT32",
                &usual,
                replaced("esp = \"64M\"", "esp = \"8M\""),
            ),
            &["esp", "33M"],
        ),
        (
            "a slot too small",
            refused("a slot too small", &usual, with_disk("slot_size = \"16M\"")),
            &["headroom", "disk.slot_size"],
        ),
        (
            "a stub that is the boot loader",
            refused(
                "a stub that is the boot loader",
                &usual,
                replaced(&stub, &loader),
            ),
            &["stub", "systemd-boot-efi"],
        ),
        (
            "a stub that is no program",
            refused(
                "a stub that is no program",
                &usual,
                replaced(&stub, "\"input/init\""),
            ),
            &["stub", "systemd-boot-efi"],
        ),
        (
            "a boot loader that is no program",
            refused(
                "a boot loader that is no program",
                &usual,
                replaced(&loader, "\"image.toml\""),
            ),
            &["loader"],
        ),
        (
            "a label that is too long",
            refused(
                "a label that is too long",
                &usual,
                replaced(
                    "id = \"tiny\"",
                    "id = \"a-name-that-is-longer-than-a-gpt-label\"",
                ),
            ),
            &["36", "shorten id"],
        ),
        (
            "an id with a slash",
            refused(
                "an id with a slash",
                &usual,
                replaced("id = \"tiny\"", "id = \"ti/ny\""),
            ),
            &["ti/ny", "image.toml:5"],
        ),
        (
            "a key of another certificate",
            refused("a key of another certificate", &usual, |text, _| {
                let pair = format!(
                    "verity = {{ key = {:?}, certificate = {:?} }}\n[disk]",
                    other_keys().join("verity.key"),
                    our_keys().join("verity.crt")
                );
                text.replacen("[disk]", &pair, 1)
            }),
            &["does not belong to the certificate"],
        ),
        (
            "a kernel without EFI stub",
            refused("a kernel without EFI stub", &usual, |text, scratch| {
                let kernel = find_kernel(&scratch.join("definition/input/kernel"));
                fs::write(&kernel, b"MZ, but no program").unwrap();
                text + "# changed\n"
            }),
            &["kernel", "CONFIG_EFI_STUB"],
        ),
    ] {
        for word in words {
            assert!(
                said.to_lowercase().contains(&word.to_lowercase()),
                "{name}: no {word:?} in: {said}"
            );
        }
    }
}

/// The kernel image below a folder.
fn find_kernel(below: &Path) -> std::path::PathBuf {
    let found = tool::run(
        tool::command("find")
            .arg(below)
            .args(["-name", "vmlinuz*", "-type", "f"]),
    );
    found
        .lines()
        .next()
        .map(Into::into)
        .unwrap_or_else(|| panic!("no kernel below {}", below.display()))
}
