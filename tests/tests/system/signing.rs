//! What is signed with the user's keys is what OpenSSL, sbsigntool and PKCS#11 tokens take for
//! signed, and a key stays where it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use adamant::sign::certificate::Certificate;
use adamant::sign::{KeySource, Signer, authenticode, keys, roothash};
use adamant_contract::root_hash::RootHash;
use adamant_tests::esp::signer;
use adamant_tests::image::{SMALL_VOLUMES, Tiny, build_command, builder, kernels, our_keys};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

fn hash() -> RootHash {
    RootHash([0xa5; 32])
}

#[test]
fn new_keys_are_readable_by_their_owner_alone_and_never_overwritten() {
    let dir = our_keys();
    for name in ["secure-boot", "verity", "pcr"] {
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (
                mode(dir.join(format!("{name}.key"))),
                mode(dir.join(format!("{name}.crt"))),
                mode(dir.clone())
            ),
            (0o600, 0o644, 0o700)
        );
        let said = tool::run(
            tool::command("openssl")
                .args(["x509", "-noout", "-text", "-in"])
                .arg(dir.join(format!("{name}.crt"))),
        );
        for expected in [
            "(3072 bit)",
            "CA:FALSE",
            "Code Signing",
            "Digital Signature",
            "CN = tests ",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        tool::run(
            tool::command("openssl")
                .args(["verify", "-check_ss_sig", "-CAfile"])
                .args([
                    dir.join(format!("{name}.crt")),
                    dir.join(format!("{name}.crt")),
                ]),
        );
    }
    let refused = keys::new(&dir, "tests", 30).unwrap_err();
    assert!(
        refused
            .remedy()
            .is_some_and(|hint| hint.contains("never overwritten"))
    );
}

#[test]
fn openssl_verifies_the_root_hash_s_signature_and_finds_no_signed_attributes() {
    let (dir, scratch) = (our_keys(), Scratch::new("roothash-signature"));
    let signature = roothash::sign(&signer(&dir, "verity"), &hash()).unwrap();
    assert_eq!(
        signature,
        roothash::sign(&signer(&dir, "verity"), &hash()).unwrap(),
        "the same every time"
    );
    let (p7s, content) = (scratch.join("roothash.p7s"), scratch.join("content"));
    fs::write(&p7s, &signature).unwrap();
    let verify = |content: &Path| {
        tool::output(
            tool::command("openssl")
                .args([
                    "cms",
                    "-verify",
                    "-binary",
                    "-inform",
                    "DER",
                    "-noverify",
                    "-in",
                ])
                .arg(&p7s)
                .arg("-content")
                .arg(content)
                .arg("-certfile")
                .arg(dir.join("verity.crt")),
        )
    };
    fs::write(&content, hash().to_string()).unwrap();
    let good = verify(&content);
    assert!(good.status.success(), "{}", tool::lossy(&good.stderr));
    fs::write(&content, format!("{}\n", hash())).unwrap();
    assert!(!verify(&content).status.success());
    let printed = tool::run(
        tool::command("openssl")
            .args(["cms", "-cmsout", "-print", "-inform", "DER", "-in"])
            .arg(&p7s),
    );
    let words: Vec<_> = printed.split_whitespace().collect();
    assert!(
        words
            .windows(2)
            .any(|pair| pair == ["signedAttrs:", "<ABSENT>"]),
        "{printed}"
    );

    let partition = roothash::partition(&signer(&dir, "verity"), &hash(), &signature).unwrap();
    assert_eq!(partition.len() % 4096, 0);
    let end = partition.iter().position(|b| *b == 0).unwrap();
    assert!(partition[end..].iter().all(|b| *b == 0));
    let json: serde_json::Value = serde_json::from_slice(&partition[..end]).unwrap();
    let der = tool::output(
        tool::command("openssl")
            .args(["x509", "-outform", "DER", "-in"])
            .arg(dir.join("verity.crt")),
    )
    .stdout;
    assert_eq!(
        json["certificateFingerprint"],
        adamant_contract::hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(&der))
    );
    assert_eq!(json["rootHash"], hash().to_string());
}

#[test]
fn sbverify_takes_our_signature_and_refuses_it_on_a_changed_program() {
    if !tool::have("sbverify") {
        return;
    }
    let (dir, scratch) = (our_keys(), Scratch::new("authenticode"));
    for suite in ["trixie", "bookworm"] {
        for program in ["systemd-bootx64.efi", "linuxx64.efi.stub"] {
            let bytes = fs::read(
                kernels(suite)
                    .join("boot/usr/lib/systemd/boot/efi")
                    .join(program),
            )
            .unwrap();
            let signed = authenticode::sign(&signer(&dir, "secure-boot"), program, &bytes).unwrap();
            assert_eq!(
                signed,
                authenticode::sign(&signer(&dir, "secure-boot"), program, &signed).unwrap(),
                "signed again: the same"
            );
            let file = scratch.join(program);
            let verify = |bytes: &[u8], certificate: &str| {
                fs::write(&file, bytes).unwrap();
                tool::output(
                    tool::command("sbverify")
                        .arg("--cert")
                        .arg(dir.join(certificate))
                        .arg(&file),
                )
                .status
                .success()
            };
            assert!(verify(&signed, "secure-boot.crt"), "{suite} {program}");
            assert!(!verify(&signed, "pcr.crt"));
            let mut changed = signed.clone();
            changed[0x1000] ^= 1;
            assert!(!verify(&changed, "secure-boot.crt"));
        }
    }
}

#[test]
fn a_token_and_a_command_sign_like_the_file() {
    let (dir, scratch) = (our_keys(), Scratch::new("external-keys"));
    let certificate = || Certificate::read(&dir.join("verity.crt")).unwrap();
    let expected = roothash::sign(&signer(&dir, "verity"), &hash()).unwrap();
    let command = format!(
        "command:openssl pkeyutl -sign -inkey {} -pkeyopt digest:sha256",
        dir.join("verity.key").display()
    );
    let by_command = Signer::open(&command.parse().unwrap(), certificate()).unwrap();
    assert_eq!(roothash::sign(&by_command, &hash()).unwrap(), expected);
    for (command, why) in [
        ("command:exit 3", "failed"),
        ("command:true", "no signature"),
        ("command:echo nonsense", "does not belong"),
    ] {
        let refused = Signer::open(&command.parse().unwrap(), certificate()).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }

    if !tool::have("softhsm2-util") || !tool::have("pkcs11-tool") {
        return;
    }
    let tokens = scratch.join("tokens");
    fs::create_dir(&tokens).unwrap();
    let configuration = scratch.join("softhsm2.conf");
    fs::write(
        &configuration,
        format!("directories.tokendir = {}\n", tokens.display()),
    )
    .unwrap();
    let key = dir.join("verity.key");
    let hsm = || {
        let mut command = tool::command("softhsm2-util");
        command.env("SOFTHSM2_CONF", &configuration);
        command
    };
    tool::run(hsm().args([
        "--init-token",
        "--free",
        "--label",
        "adamant",
        "--so-pin",
        "0000",
        "--pin",
        "1234",
    ]));
    tool::run(hsm().args(["--import"]).arg(&key).args([
        "--token", "adamant", "--label", "verity", "--id", "01", "--pin", "1234",
    ]));
    // In a child, because the PIN and SoftHSM's configuration come from the environment.
    let module = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists());
    let uri = format!(
        "pkcs11:token=adamant;object=verity;type=private?module-path={}",
        module.expect("SoftHSM's module")
    );
    let signed = scratch.join("by-token");
    let this = std::env::current_exe().unwrap();
    tool::run(
        tool::command(this)
            .args(["--exact", "signing::child_signs_by_token", "--ignored"])
            .env("SOFTHSM2_CONF", &configuration)
            .env("ADAMANT_PIN", "1234")
            .env("ADAMANT_TEST_URI", &uri)
            .env("ADAMANT_TEST_OUT", &signed),
    );
    assert_eq!(fs::read(&signed).unwrap(), expected);
}

#[test]
#[ignore = "started by another test, with its environment"]
fn child_signs_by_token() {
    let (Ok(uri), Ok(out)) = (
        std::env::var("ADAMANT_TEST_URI"),
        std::env::var("ADAMANT_TEST_OUT"),
    ) else {
        return;
    };
    let certificate = Certificate::read(&our_keys().join("verity.crt")).unwrap();
    let signer = Signer::open(&uri.parse().unwrap(), certificate).unwrap();
    fs::write(out, roothash::sign(&signer, &hash()).unwrap()).unwrap();
}

#[test]
fn refuses_a_key_that_others_can_read_one_of_another_certificate_and_one_with_an_unknown_passphrase()
 {
    let (dir, scratch) = (our_keys(), Scratch::new("refused-keys"));
    let certificate = || Certificate::read(&dir.join("verity.crt")).unwrap();
    let open = |path: &Path| {
        Signer::open(&KeySource::File(path.to_owned()), certificate())
            .unwrap_err()
            .to_string()
    };
    let copy = scratch.join("verity.key");
    fs::copy(dir.join("verity.key"), &copy).unwrap();
    for mode in [0o640, 0o604, 0o644] {
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
        assert!(open(&copy).contains("other users can read this key"));
    }
    assert!(open(&dir.join("pcr.key")).contains("does not belong to the certificate"));
    assert!(open(&dir.join("nowhere.key")).contains("nowhere.key"));
    let locked = scratch.join("locked.key");
    tool::run(
        tool::command("openssl")
            .args([
                "pkcs8",
                "-topk8",
                "-v2",
                "aes256",
                "-passout",
                "pass:right",
                "-in",
            ])
            .arg(dir.join("verity.key"))
            .arg("-out")
            .arg(&locked),
    );
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o600)).unwrap();
    // A session of its own has no terminal.
    let this = std::env::current_exe().unwrap();
    let child = |passphrase: Option<&str>| {
        let mut command = tool::command("setsid");
        command
            .args(["-w"])
            .arg(&this)
            .args([
                "--exact",
                "signing::child_opens_a_locked_key",
                "--ignored",
                "--nocapture",
            ])
            .env("ADAMANT_TEST_KEY", &locked);
        if let Some(passphrase) = passphrase {
            command.env("ADAMANT_PASSPHRASE", passphrase);
        }
        let output = tool::output(&mut command);
        tool::lossy(&output.stdout) + &tool::lossy(&output.stderr)
    };
    assert!(
        child(None).contains("no terminal to ask"),
        "{}",
        child(None)
    );
    assert!(child(Some("wrong")).contains("the passphrase does not open it"));
    assert!(
        child(Some("right")).contains("opened"),
        "{}",
        child(Some("right"))
    );
}

#[test]
#[ignore = "started by another test, with its environment"]
fn child_opens_a_locked_key() {
    let Some(key) = std::env::var_os("ADAMANT_TEST_KEY") else {
        return;
    };
    let certificate = Certificate::read(&our_keys().join("verity.crt")).unwrap();
    match Signer::open(&KeySource::File(key.into()), certificate) {
        Ok(_) => println!("opened"),
        Err(e) => println!("{e}"),
    }
}

#[test]
fn signing_later_gives_the_bytes_of_signing_at_once_and_signs_nothing_else() {
    let (dir, scratch) = (our_keys(), Scratch::new("sign-later"));
    let boot = kernels("trixie").join("boot/usr/lib/systemd/boot/efi");
    let more = format!(
        "{SMALL_VOLUMES}[boot]\nstub = {:?}\nloader = {:?}\n[sign]\nkeys = {dir:?}\n[disk]\nesp = \"64M\"\n",
        boot.join("linuxx64.efi.stub"),
        boot.join("systemd-bootx64.efi")
    );
    let definition = Tiny {
        more,
        ..Tiny::default()
    }
    .define(&scratch.join("definition"));
    // A unified kernel image alone, and then the disk with it.
    for format in ["uki", "qcow2"] {
        let (once, later) = (
            scratch.join(format!("once-{format}")),
            scratch.join(format!("later-{format}")),
        );
        tool::run(build_command(&definition, &once).args(["--format", format]));
        tool::run(build_command(&definition, &later).args(["--unsigned", "--format", format]));
        assert!(
            fs::read(once.join("tiny_1.efi")).unwrap()
                != fs::read(later.join("tiny_1.efi")).unwrap()
        );
        assert_eq!(
            (
                once.join("tiny_1.raw").exists(),
                once.join("tiny_1.qcow2").exists()
            ),
            (format != "uki", format == "qcow2")
        );
        assert!(!later.join("tiny_1.roothash.p7s").exists());

        // What is not what was built is not signed, and nothing changes.
        let image = later.join("tiny_1.efi");
        let unsigned = fs::read(&image).unwrap();
        fs::write(&image, [&unsigned[..], b"x"].concat()).unwrap();
        let sign =
            |out: &Path| tool::output(builder().arg("sign").arg(out).arg("--keys").arg(&dir));
        let refused = sign(&later);
        assert!(
            !refused.status.success()
                && tool::lossy(&refused.stderr)
                    .contains("tiny_1.efi is not the file that its manifest describes")
        );
        fs::write(&image, &unsigned).unwrap();

        assert!(sign(&later).status.success());
        let names = |out: &Path| {
            let mut names: Vec<_> = fs::read_dir(out)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&once), names(&later));
        for name in names(&once) {
            assert!(
                fs::read(once.join(&name)).unwrap() == fs::read(later.join(&name)).unwrap(),
                "{name:?} differs"
            );
        }
        tool::run(builder().arg("verify").arg(&later));

        // No line of a key is in what comes out; the first ten hold the modulus, which is public.
        let pem = fs::read_to_string(dir.join("verity.key")).unwrap();
        let line = pem.lines().nth(30).unwrap();
        for name in names(&once) {
            let bytes = fs::read(once.join(&name)).unwrap();
            assert!(
                !bytes
                    .windows(line.len())
                    .any(|window| window == line.as_bytes()),
                "a key is in {name:?}"
            );
        }
    }
}
