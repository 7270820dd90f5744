//! Images that would be built and could not work are refused or warned of, with the path and the
//! remedy. Programs and libraries are this machine's own.

use std::fs;

use adamant_tests::image;
use adamant_tests::program;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

const HEAD: &str = "[image]\nid = \"x\"\nversion = \"1\"\n";

/// Builds a definition: whether it was built, and what the builder said.
fn build(scratch: &Scratch, definition: &str) -> (bool, String) {
    let path = scratch.join("image.toml");
    fs::write(&path, definition).unwrap_or_else(|e| panic!("{e}"));
    let _ = fs::remove_dir_all(scratch.join("out"));
    let output = tool::output(&mut image::build_command(&path, &scratch.join("out")));
    let said = tool::lossy(&[output.stdout, output.stderr].concat());
    assert!(
        matches!(output.status.code(), Some(0 | 1)) && !said.contains("panicked"),
        "{said}"
    );
    (output.status.success(), said)
}

fn copy(path: &str, from: &str) -> String {
    format!("[[file]]\npath = {path:?}\ncopy = {from:?}\nmode = \"0755\"\n")
}

#[test]
fn a_shell_as_init_needs_its_loader_and_its_library() {
    let scratch = Scratch::new("unworkable-init");
    let mut definition = format!("volumes = []\n{HEAD}{}", copy("/sbin/init", "/bin/sh"));
    let (loader, libc) = (
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
    );
    let (built, said) = build(&scratch, &definition);
    assert!(!built && said.contains("/sbin/init cannot run: its dynamic loader /lib64/ld-linux-x86-64.so.2 is not in the image"), "{said}");
    definition.push_str(&copy(loader, loader));
    let (built, said) = build(&scratch, &definition);
    assert!(
        !built && said.contains("/sbin/init cannot run: the library libc.so.6 is not in the image"),
        "{said}"
    );
    definition.push_str(&copy(libc, libc));
    let (built, said) = build(&scratch, &definition);
    assert!(built && !said.contains("cannot run"), "{said}");
    // A script of this shell, saved on Windows.
    let moved = definition.replace("\"/sbin/init\"", "\"/bin/sh\"");
    let script = |line: &str| {
        format!("{moved}[[file]]\npath = \"/sbin/init\"\ncontent = \"{line}\"\nmode = \"0755\"\n")
    };
    let (built, said) = build(&scratch, &script("#!/bin/sh\\r\\necho\\r\\n"));
    assert!(
        !built && said.contains("/sbin/init cannot run: its lines end with CR LF"),
        "{said}"
    );
    assert!(build(&scratch, &script("#!/bin/sh\\necho\\n")).0);
}

#[test]
fn a_volume_on_a_link_and_a_stale_fstab_are_named() {
    let scratch = Scratch::new("unworkable-mounts");
    let tools: String = ["mkfs.ext4", "e2fsck", "resize2fs"]
        .map(|name| {
            copy(
                &format!("/sbin/{name}"),
                &program::file().display().to_string(),
            )
        })
        .concat();
    let link = "[[file]]\npath = \"/home\"\nlink = \"var/home\"\n[[volume]]\nname = \"home\"\nmount = \"/home\"\nsize = \"16M\"\n";
    let (built, said) = build(&scratch, &format!("{HEAD}{}{tools}{link}", program::init()));
    assert!(
        !built && said.contains("/home -> var/home") && said.contains("mount = \"/var/home\""),
        "{said}"
    );
    let fstab = "[[file]]\npath = \"/etc/fstab\"\ncontent = \"UUID=1234-5678 /boot/efi vfat defaults 0 1\\n\"\n";
    let (built, said) = build(
        &scratch,
        &format!("volumes = []\n{HEAD}{}{fstab}", program::init()),
    );
    assert!(
        built && said.contains("line 1: /boot/efi (UUID=1234-5678)"),
        "{said}"
    );
}
