use super::*;
use adamant_skip::skip;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::process::Command;

fn definition(disk: &str) -> Definition {
    let text = format!(
        "[image]\nid = \"web\"\nversion = \"1.0.0\"\n[[source]]\ntar = \"x\"\n[disk]\n{disk}\n[[volume]]\nname = \"state\"\nmount = \"/var\"\nsize = \"16M\"\n\
         [[volume]]\nname = \"logs\"\nmount = \"/var/log\"\nsize = \"16M\"\n"
    );
    Definition::parse(&text, std::path::Path::new("image.toml")).unwrap()
}

#[test]
fn sfdisk_reads_the_table_and_the_reported_hashes_are_right() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    std::fs::write(dir.join("root"), vec![7; 5_000_192]).unwrap();
    std::fs::write(dir.join("tree"), vec![8; 8192]).unwrap();
    let open = |name: &str| File::open(dir.join(name)).unwrap();
    let root_hash: RootHash = "f6f9916eced28986000102030405060708090a0b0c0d0e0f1011121314151617"
        .parse()
        .unwrap();
    let layout = DiskLayout::new(
        &definition(""),
        &root_hash,
        PartitionSizes {
            root: 5_000_192,
            hash_tree: 8192,
            esp: false,
            signature: false,
        },
    )
    .unwrap();
    let out = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.join("disk.raw"))
        .unwrap();
    let written = layout
        .write(
            &DiskContents {
                esp: None,
                root: &open("root"),
                hash_tree: &open("tree"),
                signature: &[],
            },
            &out,
        )
        .unwrap();

    let mut bytes = Vec::new();
    open("disk.raw").read_to_end(&mut bytes).unwrap();
    assert_eq!(
        written.root,
        <[u8; 32]>::from(Sha256::digest(vec![7; 5_000_192]))
    );
    let mut end = 0;
    for piece in &written.pieces {
        let (from, to) = (piece.offset as usize, (piece.offset + piece.size) as usize);
        assert!(from >= end && bytes[end..from].iter().all(|byte| *byte == 0));
        assert_eq!(
            piece.sha256,
            adamant_contract::hex::encode(&Sha256::digest(&bytes[from..to]))
        );
        end = to;
    }
    assert_eq!((written.pieces.len(), end), (4, bytes.len()));
    assert_eq!(bytes.len() as u64, layout.bytes());
    let Ok(checked) = Command::new("sfdisk")
        .arg("--verify")
        .arg(dir.join("disk.raw"))
        .output()
    else {
        skip!(Program("sfdisk"));
    };
    assert!(checked.status.success(), "{checked:?}");
    let dump = Command::new("sfdisk")
        .arg("-J")
        .arg(dir.join("disk.raw"))
        .output()
        .unwrap()
        .stdout;
    let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
    let parts = &dump["partitiontable"]["partitions"];
    let row =
        |i: usize| ["name", "uuid", "attrs", "start", "size"].map(|key| parts[i][key].to_string());
    assert_eq!(
        row(0),
        [
            "\"web_1.0.0\"",
            "\"F6F9916E-CED2-8986-0001-020304050607\"",
            "\"GUID:60\"",
            "2048",
            "10240"
        ]
    );
    assert_eq!(
        row(1),
        [
            "\"web_1.0.0_verity\"",
            "\"08090A0B-0C0D-0E0F-1011-121314151617\"",
            "\"GUID:60\"",
            "12288",
            "2048"
        ]
    );
    assert_eq!(
        (&parts[2]["name"], &parts[2]["size"], &parts[2]["attrs"]),
        (&"black-box".into(), &2048.into(), &"GUID:63".into())
    );
    assert_eq!(
        (&parts[4]["name"], &parts[4]["attrs"], &parts[4]["type"]),
        (
            &"state".into(),
            &"GUID:49,63".into(),
            &"4D21B016-B534-45C2-A9FB-5C16E091FD2D".into()
        )
    );
    assert_eq!(
        (&parts[3]["name"], &parts[3]["type"]),
        (
            &"logs".into(),
            &"0FC63DAF-8483-4772-8E79-3D69D8477DE4".into()
        )
    );
}
