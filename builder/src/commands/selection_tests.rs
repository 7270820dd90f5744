use super::*;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new(images: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (id, version) in images {
            let json = format!(
                r#"{{"version":1,"image":{{"id":"{id}","version":"{version}"}},"tool":"","definition":"","epoch":null,"root":{{"hash":"","salt":"","verity_uuid":"","blocks":1,"tree_blocks":1,"compression":"","cluster":1,"inodes":1,"content":1}},
                "kernel":null,"artifacts":[{{"name":"{id}_{version}.raw","size":1,"sha256":""}}],"sources":[],"scrubbed":[],"packages":[]}}"#
            );
            std::fs::write(
                folder.0.path().join(format!("{id}_{version}{SUFFIX}")),
                json,
            )
            .unwrap();
            std::fs::write(folder.0.path().join(format!("{id}_{version}.raw")), "x").unwrap();
        }
        folder
    }

    fn select(&self, what: &str) -> Result<String> {
        Selection::resolve(Path::new(&format!("{}{what}", self.0.path().display())))
            .map(|selection| selection.stem())
    }
}

#[test]
fn selects_the_newest_version_unless_a_version_or_an_artifact_is_named() {
    let folder = Folder::new(&[("web", "9"), ("web", "10"), ("web", "10~rc1"), ("web", "2")]);
    assert_eq!(folder.select("").unwrap(), "web_10");
    assert_eq!(
        Selection::resolve(folder.0.path()).unwrap().older,
        ["10~rc1", "9", "2"]
    );
    assert_eq!(folder.select("@9").unwrap(), "web_9");
    assert_eq!(folder.select("@web_2").unwrap(), "web_2");
    assert_eq!(folder.select("/web_9.raw").unwrap(), "web_9");
    assert_eq!(
        folder.select("/web_10~rc1.manifest.json").unwrap(),
        "web_10~rc1"
    );
    let missing = folder.select("@3").unwrap_err();
    assert!(
        missing.message().ends_with("no image with version 3")
            && missing.remedy().is_some_and(|hint| hint.contains("web_9")),
        "{missing}"
    );
    std::fs::write(folder.0.path().join("web_9.notes"), "x").unwrap();
    assert!(
        folder
            .select("/web_9.notes")
            .unwrap_err()
            .message()
            .contains("not an artifact of a build")
    );
    assert!(
        folder
            .select("/nothing")
            .unwrap_err()
            .message()
            .ends_with("no such file or directory")
    );
}

#[test]
fn suggests_ids_if_the_directory_has_several() {
    let folder = Folder::new(&[("web", "1"), ("db", "1"), ("db", "2")]);
    let several = folder.select("").unwrap_err();
    assert!(
        several
            .message()
            .ends_with("holds images of several ids: db, web"),
        "{several}"
    );
    assert!(
        folder
            .select("@1")
            .unwrap_err()
            .message()
            .ends_with("several images with version 1")
    );
    assert_eq!(folder.select("@2").unwrap(), "db_2");
    assert_eq!(folder.select("@web_1").unwrap(), "web_1");
}

#[test]
fn suggests_a_directory_if_there_is_no_image() {
    let folder = Folder::new(&[]);
    let hint = |folder: &Folder| {
        folder
            .select("")
            .unwrap_err()
            .remedy()
            .unwrap_or_default()
            .to_owned()
    };
    assert!(hint(&folder).contains("--output"));
    std::fs::write(folder.0.path().join("image.toml"), "").unwrap();
    assert!(hint(&folder).contains("adamant build"));
    std::fs::create_dir(folder.0.path().join("out")).unwrap();
    std::fs::write(folder.0.path().join("out/web_1.manifest.json"), "").unwrap();
    assert!(hint(&folder).contains("did you mean"));
}

#[test]
fn refuses_a_manifest_with_another_images_name() {
    let folder = Folder::new(&[("web", "1")]);
    std::fs::rename(
        folder.0.path().join("web_1.manifest.json"),
        folder.0.path().join("web_2.manifest.json"),
    )
    .unwrap();
    assert!(
        folder
            .select("")
            .unwrap_err()
            .message()
            .contains("describes web_1")
    );
}
