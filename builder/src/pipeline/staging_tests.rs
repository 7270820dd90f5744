use super::*;
use tempfile::TempDir;

struct Dir(TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn names(&self, of: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path().join(of))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn manifest(version: &str) -> Vec<u8> {
    format!(
        r#"{{"version":1,"image":{{"id":"a","version":"{version}"}},"tool":"","definition":"","epoch":null,"root":{{"hash":"","salt":"","verity_uuid":"","blocks":1,"tree_blocks":1,"compression":"","cluster":1,"inodes":1,"content":1}},
        "kernel":null,"artifacts":[{{"name":"a_{version}.raw","size":1,"sha256":""}}],"sources":[],"scrubbed":[],"packages":[]}}"#
    )
    .into_bytes()
}

fn build(dir: &Dir, version: &str, bytes: &[u8]) -> Result<()> {
    let mut staging = Staging::open(&dir.0.path().join("out"))?;
    staging.put(&format!("a_{version}.raw"), bytes)?;
    let manifest = manifest(version);
    staging.put(&format!("a_{version}.manifest.json"), &manifest)?;
    staging.publish(&Manifest::parse("", &manifest)?, Replace::SameVersion)
}

#[test]
fn an_unfinished_build_leaves_no_files_and_a_finished_one_replaces_only_its_version() {
    let dir = Dir::new();
    let mut staging = Staging::open(&dir.0.path().join("out")).unwrap();
    staging.put("a_1.raw", b"x").unwrap();
    drop(staging);
    assert_eq!(dir.names("."), [""; 0]);
    build(&dir, "1", b"one").unwrap();
    build(&dir, "2", b"two").unwrap();
    build(&dir, "1", b"one again").unwrap();
    assert_eq!(
        dir.names("out"),
        [
            "a_1.manifest.json",
            "a_1.raw",
            "a_2.manifest.json",
            "a_2.raw"
        ]
    );
    assert_eq!(
        fs::read(dir.0.path().join("out/a_1.raw")).unwrap(),
        b"one again"
    );
    assert_eq!(dir.names("."), ["out"]);
}

#[test]
fn a_second_build_of_a_version_removes_artifacts_that_it_does_not_make() {
    let dir = Dir::new();
    build(&dir, "2", b"two").unwrap();
    build(&dir, "1", b"one").unwrap();
    let mut staging = Staging::open(&dir.0.path().join("out")).unwrap();
    staging.put("a_1.manifest.json", &manifest("1")).unwrap();
    staging
        .publish(
            &Manifest::parse("", &manifest("1")).unwrap(),
            Replace::SameVersion,
        )
        .unwrap();
    assert_eq!(
        dir.names("out"),
        ["a_1.manifest.json", "a_2.manifest.json", "a_2.raw"]
    );
}

#[test]
fn other_content_replaces_a_version_only_with_force() {
    let dir = Dir::new();
    let publish = |root: &str, raw: &str, replace: Replace| -> Result<()> {
        let text = String::from_utf8(manifest("1")).unwrap();
        let text = text
            .replacen("\"hash\":\"\"", &format!("\"hash\":\"{root}\""), 1)
            .replacen("\"sha256\":\"\"", &format!("\"sha256\":\"{raw}\""), 1);
        let mut staging = Staging::open(&dir.0.path().join("out"))?;
        staging.put("a_1.raw", raw.as_bytes())?;
        staging.put("a_1.manifest.json", text.as_bytes())?;
        staging.publish(&Manifest::parse("", text.as_bytes())?, replace)
    };
    let raw = || fs::read_to_string(dir.0.path().join("out/a_1.raw")).unwrap();
    publish("aa", "x", Replace::SameContent).unwrap();
    publish("aa", "x", Replace::SameContent).unwrap();
    let error = publish("bb", "y", Replace::SameContent).unwrap_err();
    assert!(
        error
            .message()
            .contains("contains a 1 with other content: it has root hash aa, this build has bb"),
        "{error}"
    );
    assert!(error.remedy().is_some_and(|hint| hint.contains("--force")) && raw() == "x");
    let error = publish("aa", "y", Replace::SameContent).unwrap_err();
    assert!(
        error
            .message()
            .contains("both have root hash aa, but these files differ: a_1.raw"),
        "{error}"
    );
    publish("bb", "y", Replace::SameVersion).unwrap();
    assert_eq!(raw(), "y");
    build(&dir, "2", b"two").unwrap();
    publish("cc", "z", Replace::Everything).unwrap();
    assert_eq!(
        (dir.names("out"), raw()),
        (
            vec!["a_1.manifest.json".to_owned(), "a_1.raw".to_owned()],
            "z".to_owned()
        )
    );
}

#[test]
fn a_directory_with_foreign_files_is_not_replaced() {
    let dir = Dir::new();
    build(&dir, "1", b"one").unwrap();
    fs::write(dir.0.path().join("out/thesis.tex"), "years of work").unwrap();
    let error = build(&dir, "2", b"two").unwrap_err();
    assert!(error.message().contains("thesis.tex"), "{error}");
    assert_eq!(
        dir.names("out"),
        ["a_1.manifest.json", "a_1.raw", "thesis.tex"]
    );
}

#[test]
fn the_next_build_removes_the_directory_of_a_killed_one() {
    let dir = Dir::new();
    fs::create_dir_all(dir.0.path().join(".out.adamant-new/x")).unwrap();
    drop(Staging::open(&dir.0.path().join("out")).unwrap());
    assert_eq!(dir.names("."), [""; 0]);
    fs::create_dir_all(dir.0.path().join(".out.adamant-new/x")).unwrap();
    build(&dir, "1", b"one").unwrap();
    assert_eq!(dir.names("."), ["out"]);
}
