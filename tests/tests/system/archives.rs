//! Package archives: a small signed one of our own, read by apt and mmdebstrap.

use std::path::{Path, PathBuf};

use adamant_tests::image;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// Makes an archive in `$1`: a package `tiny` of version 1 in the suites `trixie` and
/// `trixie-updates`, and of version 2 in `trixie-security`, as other distributions than Debian have
/// it; signed with a key that is made for it and left in `$1/key.gpg`.
const ARCHIVE: &str = r#"
set -eu
cd "$1"
export GNUPGHOME=$PWD/gnupg
mkdir -m 700 gnupg
gpg --batch --quiet --passphrase '' --quick-generate-key archive@example.org rsa2048 sign never
gpg --batch --quiet --export archive@example.org >key.gpg
package() { # package VERSION
  mkdir -p "tree-$1/DEBIAN" "tree-$1/usr/share/tiny"
  echo "version $1" >"tree-$1/usr/share/tiny/version"
  printf 'Package: tiny\nVersion: %s\nArchitecture: amd64\nMaintainer: A <a@example.org>\nDescription: x\n' "$1" >"tree-$1/DEBIAN/control"
  mkdir -p mirror/pool
  dpkg-deb --root-owner-group --build "tree-$1" "mirror/pool/tiny_$1_amd64.deb" >/dev/null
}
suite() { # suite NAME VERSION DATE
  packages=main/binary-amd64/Packages
  mkdir -p "mirror/dists/$1/main/binary-amd64"
  deb=pool/tiny_$2_amd64.deb
  (cd mirror && { dpkg-deb --field "$deb"; echo "Filename: $deb"; echo "Size: $(stat -c %s "$deb")"; echo "SHA256: $(sha256sum <"$deb" | cut -d' ' -f1)"; }) >"mirror/dists/$1/$packages"
  (cd "mirror/dists/$1"
   printf 'Origin: Test\nSuite: %s\nCodename: %s\nDate: %s\nArchitectures: amd64\nComponents: main\nSHA256:\n %s %s %s\n' \
     "$1" "$1" "$3" "$(sha256sum <$packages | cut -d' ' -f1)" "$(stat -c %s $packages)" $packages >Release
   gpg --batch --quiet --clearsign --output InRelease Release)
}
package 1
package 2
suite trixie 1 'Sat, 01 Jan 2000 00:00:00 UTC'
suite trixie-updates 1 'Sun, 02 Jan 2000 00:00:00 UTC'
suite trixie-security 2 'Mon, 03 Jan 2000 00:00:00 UTC'
gpgconf --kill all
"#;

struct Archive(Scratch);

impl Archive {
    fn new(name: &str) -> Option<Archive> {
        if !["gpg", "dpkg-deb", "mmdebstrap"]
            .into_iter()
            .all(tool::have)
        {
            return None;
        }
        let scratch = Scratch::new(name);
        tool::run(
            tool::command("sh")
                .args(["-c", ARCHIVE, "sh"])
                .arg(scratch.path()),
        );
        Some(Archive(scratch))
    }

    fn mirror(&self) -> String {
        format!("file:{}", self.0.join("mirror").display())
    }

    /// Builds an image of the package; the text is the definition's table of the source.
    fn build(&self, table: &str) -> (bool, String, PathBuf) {
        let folder = self.0.join("image");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(&image::programs().agent, folder.join("program")).unwrap();
        let text = format!(
            "volumes = []\n[image]\nid = \"a\"\nversion = \"1\"\n[[source]]\n[source.debian]\nvariant = \"extract\"\nkeyring = \"../key.gpg\"\n{table}\n\
             [[file]]\npath = \"/sbin/init\"\ncopy = \"program\"\nmode = \"0755\"\n"
        );
        std::fs::write(folder.join("image.toml"), text).unwrap();
        let out = folder.join("out");
        let output = tool::output(
            image::build_command(&folder, &out)
                .arg("--cache")
                .arg(self.0.join("cache")),
        );
        (
            output.status.success(),
            tool::lossy(&[output.stdout, output.stderr].concat()),
            out,
        )
    }

    fn builds(&self, table: &str) -> (String, serde_json::Value) {
        let (built, said, out) = self.build(table);
        assert!(built, "{table}\n{said}");
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("a_1.manifest.json")).unwrap()).unwrap();
        (said, manifest)
    }

    fn refuses(&self, table: &str) -> String {
        let (built, said, _) = self.build(table);
        assert!(!built, "{table}\n{said}");
        said
    }
}

fn suites(manifest: &serde_json::Value) -> Vec<String> {
    manifest["sources"][0]["suites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|suite| format!("{} {}", suite["suite"].as_str().unwrap(), suite["date"]))
        .collect()
}

/// Whether the image's file says so.
fn has_version(out: &Path, version: &str) {
    if tool::mounts_erofs() {
        let mounted = tool::Mounted::new(&out.join("a_1.root.erofs"), out.join("mounted"));
        assert_eq!(
            std::fs::read_to_string(mounted.path().join("usr/share/tiny/version")).unwrap(),
            format!("version {version}\n")
        );
    }
}

#[test]
fn a_mirror_gives_security_updates_and_the_manifest_names_its_suites() {
    let Some(archive) = Archive::new("archive-mirror") else {
        return;
    };
    let (said, manifest) = archive.builds(&format!(
        "suite = \"trixie\"\npackages = [\"tiny\"]\nmirrors = [\"{}\"]",
        archive.mirror()
    ));
    assert_eq!(
        suites(&manifest),
        [
            "trixie 946684800",
            "trixie-updates 946771200",
            "trixie-security 946857600"
        ]
    );
    assert!(!said.contains("does not have it"), "{said}");
    has_version(&archive.0.join("image/out"), "2");

    std::fs::remove_dir_all(archive.0.join("mirror/dists/trixie-security")).unwrap();
    let (said, manifest) = archive.builds(&format!(
        "suite = \"trixie\"\npackages = [\"tiny\"]\nmirrors = [\"{}\"]",
        archive.mirror()
    ));
    assert_eq!(suites(&manifest).len(), 2);
    assert!(
        said.contains("suite trixie-security: ") && said.contains("no security updates"),
        "{said}"
    );
    has_version(&archive.0.join("image/out"), "1");
}

#[test]
fn deb_lines_and_stanzas_are_taken_with_their_options() {
    let Some(archive) = Archive::new("archive-lines") else {
        return;
    };
    let (mirror, key) = (
        archive.mirror(),
        archive.0.join("key.gpg").display().to_string(),
    );
    let line = format!(
        "suite = \"trixie\"\npackages = [\"tiny\"]\nmirrors = [\"deb [arch=amd64 signed-by={key}] {mirror} trixie main\"]"
    );
    let (_, manifest) = archive.builds(&line);
    assert_eq!(suites(&manifest), ["trixie 946684800"]);
    has_version(&archive.0.join("image/out"), "1");

    let stanza = format!(
        "Types: deb\nURIs: {mirror}\nSuites: trixie\n trixie-security\nComponents: main\nSigned-By: {key}\n"
    );
    let (_, manifest) = archive.builds(&format!(
        "suite = \"trixie\"\npackages = [\"tiny\"]\nmirrors = [\"\"\"\n{stanza}\"\"\"]"
    ));
    assert_eq!(
        suites(&manifest),
        ["trixie 946684800", "trixie-security 946857600"]
    );
    has_version(&archive.0.join("image/out"), "2");
}

#[test]
fn what_the_archive_does_not_have_is_one_sentence_with_the_nearest_name() {
    let Some(archive) = Archive::new("archive-missing") else {
        return;
    };
    let mirror = archive.mirror();
    let said = archive.refuses(&format!("suite = \"trixei\"\nmirrors = [\"{mirror}\"]"));
    assert!(
        said.contains("suite trixei: ") && said.contains("did you mean `trixie`?"),
        "{said}"
    );
    let said = archive.refuses(&format!(
        "suite = \"trixie\"\npackages = [\"tniy\"]\nmirrors = [\"{mirror}\"]"
    ));
    assert!(
        said.contains("package `tniy` does not exist")
            && said.contains("did you mean `tiny`?")
            && said.contains("mmdebstrap.log"),
        "{said}"
    );
    assert!(said.lines().count() < 12, "{said}");

    // Another key: the archive is not the one that the definition means.
    let other = Archive::new("archive-other").unwrap();
    std::fs::copy(other.0.join("key.gpg"), archive.0.join("key.gpg")).unwrap();
    let said = archive.refuses(&format!(
        "suite = \"trixie\"\npackages = [\"tiny\"]\nmirrors = [\"{mirror}\"]"
    ));
    assert!(
        said.contains("is signed with key") && said.contains("key.gpg does not have"),
        "{said}"
    );
}
