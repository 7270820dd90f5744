//! `adamant build --format`: every format holds the same disk, as other projects' programs read it;
//! `adamant verify` knows each; and what goes wrong leaves OUT as it was.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use adamant::format::{self, Facts, Format};
use adamant_contract::gpt::Guid;
use adamant_tests::alter;
use adamant_tests::image::{self, Image, Tiny, workspace};
use adamant_tests::program;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

const FORMATS: &str = "raw,raw.zst,qcow2,vhd,vmdk,ova,gce";
const SUFFIXES: [&str; 6] = ["raw.zst", "qcow2", "vhd", "vmdk", "ova", "tar.gz"];

fn build(definition: &Path, out: &Path, formats: &str, jobs: &str) -> Image {
    tool::run(image::build_command(definition, out).args(["--format", formats, "--jobs", jobs]));
    let manifest = fs::read_dir(out)
        .expect("OUT")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.ends_with(".manifest.json"));
    Image {
        dir: out.to_owned(),
        stem: manifest
            .expect("a manifest")
            .trim_end_matches(".manifest.json")
            .to_owned(),
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .len()
}

/// Each format against the raw disk. Unpacked copies go into the scratch folder and out of it
/// again.
fn judge(image: &Image, scratch: &Scratch) {
    let raw = image.path("raw");
    let qemu = |suffix: &str, format: &str, path: &Path| {
        if !tool::have("qemu-img") {
            return;
        }
        tool::run(
            tool::command("qemu-img")
                .args(["compare", "-f", "raw", "-F", format])
                .arg(&raw)
                .arg(path),
        );
        let info = tool::output(
            tool::command("qemu-img")
                .args(["info", "--output=json", "-f", format])
                .arg(path),
        );
        let info: serde_json::Value =
            serde_json::from_slice(&info.stdout).expect("qemu-img's JSON");
        assert_eq!(info["virtual-size"], length(&raw), "{suffix}");
        if format != "vpc" {
            tool::run(
                tool::command("qemu-img")
                    .args(["check", "-f", format])
                    .arg(path),
            );
        }
    };
    qemu("qcow2", "qcow2", &image.path("qcow2"));
    qemu("vhd", "vpc", &image.path("vhd"));
    qemu("vmdk", "vmdk", &image.path("vmdk"));

    let unpacked = scratch.join("unpacked");
    fs::create_dir_all(&unpacked).expect("a folder");
    tool::run(
        tool::command("tar")
            .arg("-xf")
            .arg(image.path("ova"))
            .arg("-C")
            .arg(&unpacked),
    );
    let file = |kind: &str| unpacked.join(format!("{}.{kind}", image.stem));
    let sums = fs::read_to_string(file("mf"))
        .expect("the OVA's manifest")
        .replace("SHA256(", "SHA256 (")
        .replace(")= ", ") = ");
    fs::write(unpacked.join("sums"), sums).expect("sums");
    tool::run(
        tool::command("sha256sum")
            .args(["--check", "--strict", "sums"])
            .current_dir(&unpacked),
    );
    qemu("ova", "vmdk", &file("vmdk"));

    tool::run(
        tool::command("tar")
            .arg("-xzf")
            .arg(image.path("tar.gz"))
            .arg("-C")
            .arg(&unpacked),
    );
    let disk = unpacked.join("disk.raw");
    let (size, whole) = (length(&raw), length(&disk));
    assert_eq!(whole, size.next_multiple_of(1 << 30));
    tool::run(
        tool::command("cmp")
            .arg("--bytes")
            .arg(size.to_string())
            .arg(&raw)
            .arg(&disk),
    );

    if tool::have("zstd") {
        tool::run(
            tool::command("zstd")
                .args(["-q", "-d", "-f"])
                .arg(image.path("raw.zst"))
                .arg("-o")
                .arg(&disk),
        );
        tool::run(tool::command("cmp").arg(&raw).arg(&disk));
    }
    fs::remove_dir_all(&unpacked).expect("the folder");
}

fn verify(out: &Path) -> (bool, String) {
    let output = tool::output(image::builder().arg("verify").arg(out));
    (
        output.status.success(),
        tool::lossy(&[output.stdout, output.stderr].concat()),
    )
}

#[test]
fn every_format_holds_the_disk_and_verify_notices_one_changed_byte_in_each() {
    let scratch = Scratch::new("formats");
    let definition = Tiny::usual().define(&scratch.join("image"));
    let image = build(&definition, &scratch.join("out"), FORMATS, "2");
    judge(&image, &scratch);

    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(image.path("manifest.json")).unwrap()).unwrap();
    let listed: Vec<&str> = manifest["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|artifact| artifact["name"].as_str())
        .collect();
    for suffix in SUFFIXES {
        assert!(
            listed.contains(&format!("{}.{suffix}", image.stem).as_str()),
            "{suffix}: {listed:?}"
        );
    }
    let (whole, said) = verify(&image.dir);
    assert!(
        whole && said.contains(&format!("{} artifacts", listed.len())),
        "{said}"
    );
    for suffix in SUFFIXES {
        let path = image.path(suffix);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let at = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let (whole, said) = verify(&image.dir);
        assert!(
            !whole && said.contains(&path.display().to_string()),
            "{suffix}: {said}"
        );
        file.write_all_at(&byte, at).unwrap();
    }
    // The raw disk: in what is in it, and where it must be empty.
    let raw = image.path("raw");
    for at in [
        100,
        600,
        2_000_000,
        alter::root(&raw).start + 5000,
        alter::partition(&raw, "state").start + 5,
        length(&raw) - 40_000,
        length(&raw) - 100,
    ] {
        alter::flip(&raw, at);
        let (whole, said) = verify(&image.dir);
        assert!(
            !whole && said.contains(&raw.display().to_string()),
            "{at}: {said}"
        );
        alter::flip(&raw, at);
    }
    assert!(verify(&image.dir).0);

    // Made again elsewhere by another number of threads, and in another order: not a byte is
    // different.
    let again = build(
        &definition,
        &scratch.join("again"),
        "gce,ova,vmdk,vhd,qcow2,raw.zst",
        "7",
    );
    for suffix in SUFFIXES.iter().chain(&["raw", "manifest.json"]) {
        tool::run(
            tool::command("cmp")
                .arg(image.path(suffix))
                .arg(again.path(suffix)),
        );
    }
    // A build that makes fewer leaves none of the old ones behind.
    build(&definition, &image.dir, "qcow2", "2");
    assert_eq!(
        SUFFIXES.map(|suffix| image.path(suffix).exists()),
        [false, true, false, false, false, false]
    );
    assert!(verify(&image.dir).0);
}

#[test]
fn check_compares_the_formats_too() {
    let scratch = Scratch::new("formats-check");
    let definition = Tiny::usual().define(&scratch.join("image"));
    let output = tool::output(
        image::build_command(&definition, &scratch.join("out"))
            .args(["--check", "--format", FORMATS]),
    );
    let said = tool::lossy(&[output.stdout, output.stderr].concat());
    assert!(
        output.status.success() && said.contains("identical"),
        "{said}"
    );
}

#[test]
fn a_limit_on_file_sizes_ends_the_build_with_the_reason_and_without_a_trace() {
    let scratch = Scratch::new("formats-limit");
    let definition = Tiny::usual().define(&scratch.join("image"));
    let image = build(&definition, &scratch.join("out"), "raw", "2");
    let before = fs::read(image.path("manifest.json")).unwrap();
    // The raw disk just fits; a virtual hard disk is one sector longer. The shell counts in
    // sectors.
    let sectors = fs::metadata(image.path("raw")).unwrap().len() / 512;
    let build = image::build_command(&definition, &image.dir);
    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {sectors}; exec \"$@\""),
            "sh",
        ])
        .arg(build.get_program())
        .args(build.get_args());
    for (name, value) in build.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let output = tool::output(shell.args(["--format", "vhd"]));
    let said = tool::lossy(&output.stderr);
    assert!(
        !output.status.success()
            && said.contains("the disk as vhd: writing: File too large")
            && said.contains("free space"),
        "{said}"
    );
    assert_eq!(fs::read(image.path("manifest.json")).unwrap(), before);
    assert!(!image.path("vhd").exists() && verify(&image.dir).0);
}

#[test]
fn without_a_kernel_there_is_no_disk_in_any_format() {
    let scratch = Scratch::new("formats-kernel");
    let text = format!(
        "volumes = []\n[image]\nid = \"none\"\nversion = \"1\"\n{}",
        program::init()
    );
    fs::write(scratch.join("image.toml"), text).unwrap();
    let output = tool::output(
        image::build_command(&scratch.join("image.toml"), &scratch.join("out"))
            .args(["--format", "qcow2"]),
    );
    let said = tool::lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("--format qcow2: the image has no kernel"),
        "{said}"
    );
    assert!(!scratch.join("out").exists());
}

/// In a process of its own, whose memory is then known: one format, by 16 threads.
fn write_one(format: &str, raw: &Path, out: &Path) {
    let format: Format = format.parse().expect("a format");
    let facts = Facts {
        id: "web".to_owned(),
        version: "1".to_owned(),
        guid: Guid::ZERO,
        epoch: 0,
    };
    let out = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(out)
        .expect("out");
    format::write(format, &File::open(raw).expect("raw"), &facts, &out, 16).expect("written");
}

#[test]
fn no_format_takes_more_than_64_mib_of_memory_with_16_threads() {
    const ONE: &str = "ADAMANT_TESTS_FORMAT";
    const NAME: &str = "formats::no_format_takes_more_than_64_mib_of_memory_with_16_threads";
    if let Some(format) = std::env::var(ONE).ok().filter(|format| !format.is_empty()) {
        let path = |name: &str| std::env::var_os(format!("{ONE}_{name}")).unwrap();
        write_one(&format, Path::new(&path("RAW")), Path::new(&path("OUT")));
        let status = fs::read_to_string("/proc/self/status").unwrap();
        println!(
            "{}",
            status
                .lines()
                .find(|line| line.starts_with("VmHWM:"))
                .unwrap()
        );
        return;
    }
    let scratch = Scratch::new("formats-memory");
    let raw = File::create(scratch.join("raw")).unwrap();
    raw.set_len(512 << 20).unwrap();
    let mut state = 1u64;
    for piece in 0..128u64 {
        // Words of a small language, so that compressors have much to remember, then noise, so that
        // what they make is long.
        let mut bytes = vec![0; 1 << 20];
        for word in bytes.chunks_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let letters = if piece / 4 % 2 == 0 { 48 } else { 0 };
            let chosen = (state >> letters)
                .wrapping_add(piece)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            word.copy_from_slice(&chosen.to_le_bytes());
        }
        raw.write_all_at(&bytes, piece / 4 * (15 << 20) + piece % 4 * (1 << 20))
            .unwrap();
    }
    let mut failures = Vec::new();
    for format in FORMATS.split(',').skip(1) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", NAME, "--nocapture"])
            .env(ONE, format)
            .env(format!("{ONE}_RAW"), scratch.join("raw"))
            .env(format!("{ONE}_OUT"), scratch.join("out"));
        let said = tool::lossy(&tool::output(&mut child).stdout);
        let peak = said
            .split_once("VmHWM:")
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok());
        let peak = peak.unwrap_or_else(|| panic!("{format}: {said}")) >> 10;
        println!("{format}: {peak} MiB");
        if peak > 64 {
            failures.push(format!("{format}: {peak} MiB"));
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
#[ignore = "long: builds a Debian image, and packs its disk in seven ways"]
fn a_debian_disk_in_every_format_beside_what_qemu_img_makes_of_it() {
    let scratch = Scratch::new("formats-debian");
    let started = Instant::now();
    let output = tool::output(
        image::build_command(&workspace().join("images/debian"), &scratch.join("out"))
            .args(["--format", FORMATS, "--json"]),
    );
    assert!(output.status.success(), "{}", tool::lossy(&output.stderr));
    println!(
        "build with all formats: {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let image = Image {
        dir: scratch.join("out"),
        stem: "debian_1.0.0".to_owned(),
    };
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for stage in document["stages"].as_array().unwrap() {
        let name = stage["name"].as_str().unwrap();
        let suffix = if name == "gce" { "tar.gz" } else { name };
        let size = fs::metadata(image.path(suffix)).map_or(0, |meta| meta.len());
        println!(
            "{name:>12} {:>8.2} s {:>8.1} MiB",
            stage["seconds"].as_f64().unwrap(),
            size as f64 / (1 << 20) as f64
        );
    }
    if tool::have("qemu-img") {
        for (name, options) in [
            ("qcow2", &["-c", "-O", "qcow2"][..]),
            ("vmdk", &["-O", "vmdk", "-o", "subformat=streamOptimized"]),
        ] {
            let (started, theirs) = (Instant::now(), scratch.join("theirs"));
            tool::run(
                tool::command("qemu-img")
                    .arg("convert")
                    .args(["-f", "raw"])
                    .args(options)
                    .arg(image.path("raw"))
                    .arg(&theirs),
            );
            let (took, size) = (
                started.elapsed().as_secs_f64(),
                fs::metadata(&theirs).unwrap().len(),
            );
            println!(
                "{:>12} {took:>8.2} s {:>8.1} MiB",
                format!("qemu {name}"),
                size as f64 / (1 << 20) as f64
            );
            // Alignment differs by some; a tenth more would be a fault of ours.
            let ours = fs::metadata(image.path(name)).unwrap().len();
            assert!(
                ours * 10 <= size * 11,
                "{name}: {ours} bytes, {size} by qemu-img"
            );
        }
    }
    judge(&image, &scratch);
    assert!(verify(&image.dir).0);
}
