//! `adamant verify` of damaged images.

use super::*;

#[test]
fn verify_names_the_artifact_the_block_and_the_file() {
    let scratch = Scratch::new();
    let fresh = |name: &str, at: usize| {
        assert_success(&scratch.build());
        scratch.flip(name, at);
        let error = scratch.verify("out").unwrap_err();
        (error, fs::metadata(scratch.out(name)).unwrap().len())
    };
    let (error, length) = fresh("t_1.root.erofs", 2_000_000);
    assert!(
        error.contains(&format!(
            "t_1.root.erofs: block {} was changed: it belongs to /usr/share/noise",
            2_000_000 / 4096
        )),
        "{error} ({length})"
    );
    assert!(
        fresh("t_1.root.erofs", 1030)
            .0
            .contains("it belongs to the superblock")
    );
    assert!(
        fresh("t_1.root.verity", 4096 * 2 + 5)
            .0
            .contains("block 2 of the hash tree (level 1 below its top)")
    );
    assert!(fresh("t_1.root.verity", 4096 + 5).0.contains("top block"));
    assert!(fresh("t_1.root.verity", 100).0.contains("root hash"));
    assert!(
        fresh("t_1.initrd", 9)
            .0
            .contains("t_1.initrd: its SHA-256 is not the one in the manifest")
    );
    assert!(
        fresh("t_1.cmdline", 9)
            .0
            .contains("t_1.cmdline: its SHA-256 is not the one in the manifest")
    );
    assert!(fresh("t_1.raw", 530).0.contains("t_1.raw: partition table"));
    let (error, _) = fresh("t_1.raw", (1 << 20) + 2_000_000);
    assert!(
        error.contains(
            "t_1.raw, partition \"t_1\": block 488 was changed: it belongs to /usr/share/noise"
        ),
        "{error}"
    );
    assert_success(&scratch.build());
    fs::remove_file(scratch.out("t_1.vmlinuz")).unwrap();
    assert!(scratch.verify("out").unwrap_err().contains("t_1.vmlinuz"));
}

/// The hashes match data that was damaged before hashing; only reading the files finds it.
#[test]
fn verify_read_data_finds_data_that_cannot_be_decompressed() {
    let scratch = Scratch::new();
    let text = fs::read_to_string(scratch.0.path().join("image.toml")).unwrap();
    let text = text.replace(
        "CONFIG_RD_ZSTD=y",
        "CONFIG_RD_ZSTD=y\\nCONFIG_EROFS_FS_ZIP_ZSTD=y",
    );
    scratch.write(
        "image.toml",
        format!("{text}[root]\ncompression = \"zstd:3\"\n").as_bytes(),
    );
    assert_success(&scratch.build());
    let (root, tree) = (
        scratch.out("t_1.root.erofs"),
        scratch.out("t_1.root.verity"),
    );
    let mut bytes = fs::read(&root).unwrap();
    // The bytes after the magic number of the first Zstandard frame (RFC 8878, 3.1.1) become
    // invalid. The next frames belong to other files; damaging those too would make the first
    // error random.
    let at = (0..bytes.len() - 8)
        .find(|at| bytes[*at..].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
        .unwrap();
    bytes[at + 4..at + 8].fill(0xff);
    fs::write(&root, bytes).unwrap();
    let Some(made) = tool(
        "veritysetup",
        &[Path::new("format"), &root, &tree, Path::new("--salt=00")],
    ) else {
        return;
    };
    let said = String::from_utf8(made.stdout).unwrap();
    let hash = said
        .lines()
        .find_map(|line| line.strip_prefix("Root hash:"))
        .unwrap_or_else(|| panic!("{said}"));
    fs::write(scratch.out("t_1.roothash"), hash.trim()).unwrap();
    assert!(
        scratch
            .verify("out/t_1.root.erofs")
            .unwrap()
            .starts_with("t_1: OK")
    );
    let error = scratch.verify_data("out/t_1.root.erofs").unwrap_err();
    assert!(
        error.contains("t_1.root.erofs: /usr/share/text: ")
            && error.contains("does not decompress"),
        "{error}"
    );
}
