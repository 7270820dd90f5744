use super::*;
use adamant_skip::skip;
use std::process::Command;

/// Data of `blocks` distinct blocks, and its hash tree.
fn build(blocks: usize) -> (Vec<u8>, Vec<u8>, RootHash) {
    let mut data = vec![0; blocks * BLOCK];
    for (i, block) in data.chunks_mut(BLOCK).enumerate() {
        block[..8].copy_from_slice(&(i as u64).to_le_bytes());
    }
    let mut hasher = VerityHasher::new(&salt("test"));
    // Out of order, in one large piece and one small one.
    hasher.add_blocks(1, &data[BLOCK..], 3);
    hasher.add_blocks(0, &data[..BLOCK], 1);
    let mut tree = Vec::new();
    let (root, _) = hasher.finish(uuid("test"), &mut tree).unwrap();
    (data, tree, root)
}

#[test]
fn the_hash_tree_equals_that_of_veritysetup() {
    if Command::new("veritysetup")
        .arg("--version")
        .output()
        .is_err()
    {
        skip!(Program("veritysetup"));
    }
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    for blocks in [1, 2, 128, 129, 128 * 128, 128 * 128 + 1] {
        let (data, tree, root) = build(blocks);
        std::fs::write(dir.join("data"), &data).unwrap();
        let hex = |bytes: &[u8]| adamant_contract::hex::encode(bytes);
        let id = hex(&uuid("test"));
        let id = format!(
            "{}-{}-{}-{}-{}",
            &id[..8],
            &id[8..12],
            &id[12..16],
            &id[16..20],
            &id[20..]
        );
        let output = Command::new("veritysetup")
            .args([
                "format",
                "--data-block-size=4096",
                "--hash-block-size=4096",
                "--salt",
                &hex(&salt("test")),
                "--uuid",
                &id,
            ])
            .args([dir.join("data"), dir.join("tree")])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains(&root.to_string()),
            "{blocks} blocks: {text}"
        );
        assert!(
            std::fs::read(dir.join("tree")).unwrap() == tree,
            "{blocks} blocks"
        );
    }
}

#[test]
fn the_check_names_the_first_corrupted_block_of_data_and_of_every_level() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let (data, tree, root) = build(128 * 128 + 1);
    let judge = |data: &[u8], tree: &[u8], root: &RootHash| {
        let (data_path, tree_path) = (dir.join("data"), dir.join("tree"));
        std::fs::write(&data_path, data).unwrap();
        std::fs::write(&tree_path, tree).unwrap();
        let open =
            |path: &std::path::Path| Part::whole(std::fs::File::open(path).unwrap()).unwrap();
        check(&open(&data_path), &open(&tree_path), root, 2).unwrap()
    };
    assert!(judge(&data, &tree, &root).is_ok());
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    for block in [0, 1, 8192, 128 * 128] {
        assert_eq!(
            judge(&flipped(&data, block * BLOCK + 4095), &tree, &root),
            Err(Corruption::Data {
                block: block as u64
            })
        );
    }
    for (level, block) in [(0, 1), (1, 2), (1, 3), (2, 4), (2, 132)] {
        assert_eq!(
            judge(&data, &flipped(&tree, block * BLOCK + 4095), &root),
            Err(Corruption::HashTree {
                level,
                block: block as u64
            })
        );
    }
    let mut other = root;
    other.0[31] ^= 1;
    assert_eq!(
        judge(&data, &tree, &other),
        Err(Corruption::HashTree { level: 0, block: 1 })
    );
    for at in [0, 8, 72, 600] {
        assert!(
            matches!(
                judge(&data, &flipped(&tree, at), &root),
                Err(Corruption::Superblock(_))
            ),
            "byte {at}"
        );
    }
    assert!(matches!(
        judge(&data[BLOCK..], &tree, &root),
        Err(Corruption::Superblock(_))
    ));
    assert!(matches!(
        judge(&data, &tree[..BLOCK], &root),
        Err(Corruption::Superblock(_))
    ));
}
