use super::*;

#[test]
fn refuses_newer_versions_paths_as_names_and_overlapping_parts() {
    let piece = |offset, size| ArtifactPart {
        offset,
        size,
        sha256: "00".into(),
    };
    let manifest = Manifest {
        version: 1,
        image: ImageVersion {
            id: "web".into(),
            version: "1".into(),
        },
        tool: "adamant 0".into(),
        definition: String::new(),
        epoch: None,
        root: RootRecord {
            hash: String::new(),
            salt: String::new(),
            verity_uuid: String::new(),
            blocks: 1,
            tree_blocks: 2,
            compression: "none".into(),
            cluster: 4096,
            optimize: Optimize::Updates,
            reference: None,
            inodes: 1,
            content: 0,
        },
        kernel: None,
        pcr11: vec![],
        pcr11_debug: vec![],
        credentials: Vec::new(),
        signatures: vec![],
        artifacts: vec![Artifact {
            name: "web_1.raw".into(),
            size: 9,
            sha256: None,
            parts: vec![piece(0, 4), piece(5, 4)],
        }],
        sources: vec![],
        scrubbed: vec![],
        packages: vec![],
        volumes: vec![],
        image_data: vec![],
    };
    let json = String::from_utf8(manifest.to_json().unwrap()).unwrap();
    assert_eq!(Manifest::parse("m", json.as_bytes()).unwrap(), manifest);
    let newer = Manifest::parse(
        "m",
        json.replace("\"version\": 1,", "\"version\": 2,\"new\": 1,")
            .as_bytes(),
    )
    .unwrap_err();
    assert!(
        newer
            .message()
            .contains("version 2, this program knows version 1"),
        "{newer}"
    );
    let path =
        Manifest::parse("m", json.replace("web_1.raw", "../web_1.raw").as_bytes()).unwrap_err();
    assert!(path.message().contains("not an artifact's name"), "{path}");
    for (right, wrong) in [
        ("\"offset\": 5", "\"offset\": 3"),
        ("\"size\": 9", "\"size\": 8"),
        ("\"parts\"", "\"sha256\": \"00\", \"parts\""),
    ] {
        let parts = Manifest::parse("m", json.replacen(right, wrong, 1).as_bytes()).unwrap_err();
        assert!(
            parts
                .message()
                .contains("web_1.raw: neither one hash nor parts"),
            "{parts}"
        );
    }
    let huge = json.replacen("\"offset\": 5", "\"offset\": 18446744073709551615", 1);
    assert!(Manifest::parse("m", huge.as_bytes()).is_err());
}
