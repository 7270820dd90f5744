//! Builds with a cache, with a reference image, and builds without a change.

use super::*;

/// The pack files of the cache.
fn packs(scratch: &Scratch) -> Vec<PathBuf> {
    let list = fs::read_dir(scratch.0.path().join("cache/adamant/results")).unwrap();
    list.map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pack"))
        .collect()
}

#[test]
fn the_bytes_do_not_depend_on_the_state_of_the_cache() {
    let scratch = Scratch::new();
    for file in 0..200 {
        scratch.write(
            &format!("files/usr/share/{file}"),
            format!("file {file} says so\n")
                .repeat(10 + file * 40)
                .as_bytes(),
        );
    }
    let root = |out: &str| fs::read(scratch.0.path().join(out).join("t_1.root.erofs")).unwrap();
    let build = |out: &str, more: &[&str]| {
        let mut command = scratch.adamant("build");
        command
            .arg("-o")
            .arg(scratch.0.path().join(out))
            .args(more)
            .arg(scratch.0.path().join("image.toml"));
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let built = |out: &str, more: &[&str]| {
        assert_success(&build(out, more).wait_with_output().unwrap());
        root(out)
    };
    let right = built("none", &["--no-cache"]);
    assert!(
        !scratch.0.path().join("cache/adamant/results").exists(),
        "--no-cache writes no cache entry"
    );
    for (out, jobs) in [("cold", "2"), ("warm", "1")] {
        assert!(built(out, &["--jobs", jobs]) == right, "{out}");
    }
    let [pack] = &packs(&scratch)[..] else {
        panic!("{:?}", packs(&scratch))
    };
    let whole = fs::read(pack).unwrap();
    for (out, at) in [
        ("value", 2000),
        ("index", whole.len() - 400),
        ("end", whole.len() - 3),
    ] {
        let mut bytes = whole.clone();
        bytes[at..at + 3].iter_mut().for_each(|byte| *byte ^= 0xff);
        packs(&scratch)
            .iter()
            .for_each(|pack| fs::remove_file(pack).unwrap());
        fs::write(pack, bytes).unwrap();
        assert!(built(out, &[]) == right, "a pack with a damaged {out}");
    }
    fs::write(pack, &whole[..whole.len() / 2]).unwrap();
    assert!(built("half", &[]) == right);
    fs::remove_dir_all(scratch.0.path().join("cache")).unwrap();
    let together: Vec<Child> = (0..4)
        .map(|i| build(&format!("together-{i}"), &[]))
        .collect();
    for (i, child) in together.into_iter().enumerate() {
        assert_success(&child.wait_with_output().unwrap());
        assert!(root(&format!("together-{i}")) == right);
    }
}

#[test]
fn the_manifest_records_the_reference_image_that_the_same_bytes_need() {
    let scratch = Scratch::new();
    let first = scratch.out("t_1.root.erofs");
    let build = |more: &[&str]| {
        scratch
            .adamant("build")
            .arg("--force")
            .arg(scratch.0.path())
            .args(more)
            .output()
            .unwrap()
    };
    let error = |reference: &Path, more: &[&str]| {
        let output = build(&[&["--reference", reference.to_str().unwrap()], more].concat());
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_success(&build(&[]));
    scratch.define("2");
    scratch.write(
        "files/usr/share/another",
        "another text\n".repeat(5000).as_bytes(),
    );
    let out = scratch.0.path().join("out");
    let checked = build(&["--reference", out.to_str().unwrap(), "--check"]);
    assert_success(&checked);
    assert!(String::from_utf8_lossy(&checked.stderr).contains("identical"));
    scratch.verify("out/t_2.manifest.json").unwrap();
    let root = |name: &str| -> serde_json::Value {
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(scratch.out(name)).unwrap()).unwrap();
        manifest["root"].clone()
    };
    let digest = tool("sha256sum", &[&first]).unwrap().stdout;
    assert_eq!(
        root("t_2.manifest.json")["reference"],
        String::from_utf8_lossy(&digest[..64]).into_owned()
    );
    assert_eq!(root("t_1.manifest.json").get("reference"), None);

    // Without a reference, or with another one, the build is not skipped.
    let said = |more: &[&str]| String::from_utf8_lossy(&build(more).stderr).into_owned();
    std::thread::sleep(Duration::from_millis(60));
    assert!(
        !said(&["--reference", first.to_str().unwrap()]).contains("nothing changed"),
        "--check always builds and records nothing"
    );
    let again = said(&["--reference", first.to_str().unwrap()]);
    assert!(again.contains("nothing changed"), "{again}");
    assert!(!said(&[]).contains("nothing changed"));
    assert_eq!(root("t_2.manifest.json").get("reference"), None);

    // Of two images in OUT the newest is the reference.
    let digest = tool("sha256sum", &[&scratch.out("t_2.root.erofs")])
        .unwrap()
        .stdout;
    assert_success(&build(&["--reference", out.to_str().unwrap()]));
    assert_eq!(
        root("t_2.manifest.json")["reference"],
        String::from_utf8_lossy(&digest[..64]).into_owned()
    );
    let replaced = error(&scratch.out("t_2.root.erofs"), &["--check"]);
    assert!(
        replaced.contains("this build would replace it"),
        "{replaced}"
    );
    assert_success(&build(&[
        "--reference",
        scratch.out("t_2.root.erofs").to_str().unwrap(),
    ]));
    let wrong = error(&scratch.0.path().join("files/usr/share/noise"), &[]);
    assert!(
        wrong.contains("files/usr/share/noise") && wrong.contains("that adamant built"),
        "{wrong}"
    );
    fs::write(&first, &fs::read(&first).unwrap()[..BLOCK * 20]).unwrap();
    let cut = error(&first, &[]);
    assert!(
        cut.contains("--reference") && cut.contains("superblock"),
        "{cut}"
    );
}

#[test]
fn an_unchanged_build_is_skipped_and_any_change_is_built() {
    let scratch = Scratch::new();
    let says = |output: &Output| {
        assert_success(output);
        String::from_utf8_lossy(&output.stderr).contains("nothing changed since it was built")
    };
    // A file that was written just now could change again without a new time.
    let settle = || std::thread::sleep(Duration::from_millis(60));
    let mut versions = Vec::new();
    let mut again = |what: &str| {
        settle();
        assert!(!says(&scratch.build()), "{what}: built");
        settle();
        assert!(says(&scratch.build()), "{what}: built again");
        versions.push(fs::read_to_string(scratch.out("t_1.roothash")).unwrap());
    };
    again("at first");
    scratch.write(
        "files/usr/share/text",
        "something else\n".repeat(20_000).as_bytes(),
    );
    again("a file's content");
    fs::set_permissions(
        scratch.0.path().join("files/usr/share/text"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    again("a file's mode");
    fs::write(scratch.0.path().join("files/usr/share/new"), "").unwrap();
    again("a new file");
    fs::remove_file(scratch.0.path().join("files/usr/share/new")).unwrap();
    again("a removed file");
    scratch.flip("t_1.root.erofs", 5000);
    again("an altered artifact");
    fs::remove_file(scratch.out("t_1.initrd")).unwrap();
    again("a missing artifact");
    versions.dedup();
    assert!(versions.len() >= 4, "{versions:?}");
    // These options always build.
    for option in ["--no-cache", "--check"] {
        let output = scratch
            .adamant("build")
            .arg(option)
            .arg("-o")
            .arg(scratch.0.path().join("out"))
            .arg(scratch.0.path().join("image.toml"))
            .output()
            .unwrap();
        assert!(!says(&output), "{option}");
    }
}
