//! The agent verifies by whom the root hash was signed before it does anything with it: what the
//! image's own key did not sign does not start, and its line says why.

use std::fs;
use std::path::Path;

use adamant::sign::roothash;
use adamant_contract::root_hash::RootHash;
use adamant_contract::signature::{Certificate, Embedded, check_signature};
use adamant_tests::alter;
use adamant_tests::esp::{signed, signer};
use adamant_tests::image::{Image, SMALL_VOLUMES, Tiny, build_command, other_keys, our_keys};
use adamant_tests::machine::{Machine, Setup};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// Starts a copy of the image's disk, altered.
fn switch_on(
    image: &Image,
    scratch: &Scratch,
    alter_disk: impl FnOnce(&Path),
    arguments: &[&str],
) -> Machine {
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    alter_disk(&disk);
    Setup::of(image)
        .disk(&disk)
        .arguments(arguments)
        .start(scratch)
}

/// Starts a copy of the image's disk, altered, and gives the console.
fn start(image: &Image, name: &str, alter_disk: impl FnOnce(&Path), arguments: &[&str]) -> String {
    let scratch = Scratch::new(name);
    switch_on(image, &scratch, alter_disk, arguments).wait_for_end()
}

/// The altered image does not start, and the stage's line has these words.
fn refused(
    image: &Image,
    name: &str,
    alter_disk: impl FnOnce(&Path),
    words: &[&str],
    end: impl FnOnce(Machine) -> String,
) {
    let scratch = Scratch::new(name);
    let mut machine = switch_on(image, &scratch, alter_disk, &[]);
    let line = machine.wait_for_refusal("signature", words);
    let console = end(machine);
    assert!(!console.contains("tiny: "), "it was started:\n{console}");
    assert!(
        line.split(": ").count() >= 5,
        "stage, what, why and what to do: {line}"
    );
    println!("{line}");
}

fn put(disk: &Path, content: &[u8]) {
    let place = alter::partition(disk, "tiny_1_sig");
    alter::zero(disk, place.start, place.size as usize);
    alter::write(disk, place.start, content);
}

/// What the signature partition would hold had this folder's key signed this root hash.
fn signature(keys: &Path, hash: &RootHash) -> Vec<u8> {
    let signer = signer(keys, "verity");
    let message = roothash::sign(&signer, hash).unwrap_or_else(|e| panic!("{e}"));
    roothash::partition(&signer, hash, &message).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn no_bit_of_a_signature_partition_can_change_without_being_noticed() {
    let hash = RootHash([0x5a; 32]);
    let partition = signature(&our_keys(), &hash);
    let trusted =
        [Certificate::from_pem(&fs::read(our_keys().join("verity.crt")).unwrap()).unwrap()];
    let good = Embedded::parse(&partition).unwrap();
    assert_eq!(
        check_signature(&good, &hash, &trusted, 0)
            .unwrap()
            .fingerprint(),
        good.certificate_fingerprint
    );
    let used = partition.iter().position(|byte| *byte == 0).unwrap();
    for at in (0..used + 16).chain([partition.len() - 1]) {
        for bit in 0..8 {
            let mut altered = partition.clone();
            altered[at] ^= 1 << bit;
            let accepted = Embedded::parse(&altered)
                .is_ok_and(|embedded| check_signature(&embedded, &hash, &trusted, 0).is_ok());
            // White space after the JSON is the same signature.
            assert!(
                !accepted || (at, altered[at]) == (used, b' '),
                "byte {at}, bit {bit}"
            );
        }
    }
}

#[test]
fn a_signed_image_starts_and_says_by_whom_also_with_a_clock_that_stood_still() {
    for (name, arguments) in [
        ("signed", &[][..]),
        ("signed-1999", &["-rtc", "base=1999-01-01T00:00:00"]),
    ] {
        let console = start(&signed().build(), name, |_| {}, arguments);
        assert!(
            console.contains("tiny: signed by tests verity (require)"),
            "{console}"
        );
        assert!(
            console.contains("tiny: done") && !console.contains("tiny: warning"),
            "{console}"
        );
        assert!(
            console.contains(
                "tiny: kernel on the signature: the signer's certificate is in none of its keyrings"
            ),
            "{console}"
        );
    }
}

#[test]
fn an_altered_a_missing_and_another_s_signature_are_refused() {
    let image = signed().build();
    let hash: RootHash = image.root_hash().parse().unwrap();
    let good = signature(&our_keys(), &hash);
    // A digit of the message's last bytes, which are the key's signature.
    let end = good.iter().position(|byte| *byte == 0).unwrap();
    let mut altered = good.clone();
    altered[end - 100] = if altered[end - 100] == b'A' {
        b'B'
    } else {
        b'A'
    };
    let other_image = signature(&our_keys(), &RootHash([1; 32]));
    let other_key = signature(&other_keys(), &hash);
    let cases: [(&str, &[u8], &str); 4] = [
        ("altered", &altered, "altered, or made with another key"),
        ("empty", &[], "empty"),
        ("other-image", &other_image, "signature of another image"),
        ("other-key", &other_key, "not trusted here"),
    ];
    for (name, content, why) in cases {
        refused(
            &image,
            name,
            |disk| put(disk, content),
            &["signature partition", why],
            Machine::cut_power_of_refused,
        );
    }
    let missing =
        |disk: &Path| alter::drop_partition(disk, alter::partition(disk, "tiny_1_sig").number);
    refused(
        &image,
        "no-signature",
        missing,
        &["no signature partition"],
        |mut machine| machine.wait_for_end(),
    );
}

#[test]
fn the_build_refuses_an_expired_certificate() {
    let scratch = Scratch::new("expired-keys");
    let dir = scratch.join("keys");
    fs::create_dir_all(&dir).unwrap();
    let openssl = |words: &str| {
        tool::run(
            tool::command("openssl")
                .current_dir(&dir)
                .args(words.split(' ')),
        )
    };
    openssl("req -new -nodes -newkey rsa:2048 -keyout verity.key -out request -subj /CN=expired");
    openssl("x509 -req -in request -signkey verity.key -days -1 -out verity.crt");
    tool::run(
        tool::command("chmod")
            .arg("600")
            .arg(dir.join("verity.key")),
    );
    let sign = format!(
        "[sign]\nverity = {{ key = {:?}, certificate = {:?} }}\n",
        dir.join("verity.key"),
        dir.join("verity.crt")
    );
    let definition = Tiny::default()
        .with(&format!("{SMALL_VOLUMES}{sign}"))
        .define(&scratch.join("definition"));
    let output = tool::output(&mut build_command(&definition, &scratch.join("out")));
    let said = tool::lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in [
        "verity.crt: the certificate of CN=expired expired on ",
        "adamant keys new",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

/// The tests' keys are valid for ten years from now on.
#[test]
fn the_clock_and_the_dates_of_keys_never_keep_a_signed_image_from_starting() {
    // Root set the clock to 2040 and restarted: the certificate has expired in every slot.
    let console = start(
        &signed().build(),
        "2040",
        |_| {},
        &["-rtc", "base=2040-01-01T00:00:00"],
    );
    assert!(
        console.contains("tiny: signed by tests verity (require)")
            && console.contains("tiny: done"),
        "{console}"
    );
    // Pinned inputs date this image before its keys.
    let scratch = Scratch::new("old-snapshot");
    let definition = signed().define(&scratch.join("definition"));
    let image = Image {
        dir: scratch.join("out"),
        stem: "tiny_1".to_owned(),
    };
    tool::run(build_command(&definition, &image.dir).args(["--epoch", "2019-06-01"]));
    let console = start(&image, "old-snapshot", |_| {}, &[]);
    assert!(
        console.contains("tiny: signed by tests verity (require)")
            && console.contains("tiny: done"),
        "{console}"
    );
    // An image that claims to be younger than its keys could not start.
    let output = tool::output(
        build_command(&definition, &scratch.join("young")).args(["--epoch", "2070-01-01"]),
    );
    let said = tool::lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("before the image's build time"),
        "{said}"
    );
}

#[test]
fn prefer_starts_what_is_not_signed_and_warns() {
    let image = signed().with("[verify]\nsignature = \"prefer\"\n").build();
    let console = start(&image, "prefer", |disk| put(disk, &[]), &[]);
    assert!(
        console.contains("tiny: signed by nobody (prefer)") && console.contains("tiny: done"),
        "{console}"
    );
    assert!(
        console.contains("tiny: warning The root hash's signature was not verified"),
        "{console}"
    );
}
