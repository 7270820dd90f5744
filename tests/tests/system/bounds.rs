//! Large sources cost time, not memory.

use std::path::Path;

use adamant_tests::image::{self, Image};
use adamant_tests::scratch::Scratch;
use adamant_tests::{archive, tool};

/// GNU time, which knows the peak of a process.
const TIME: &str = "/usr/bin/time";

/// Builds with so many threads; gives the peak resident memory in MiB, and seconds.
fn build(definition: &Path, out: &Path, jobs: u32) -> (f64, f64) {
    let report = out.with_extension("time");
    let build = image::build_command(definition, out);
    let mut command = tool::command(TIME);
    command
        .args(["-f", "%M %e", "-o"])
        .arg(&report)
        .arg(build.get_program())
        .args(build.get_args())
        .arg(format!("--jobs={jobs}"));
    tool::run(&mut command);
    let text = std::fs::read_to_string(&report).unwrap_or_else(|e| panic!("{e}"));
    let figures: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [peak, seconds] = figures[..] else {
        panic!("{TIME} said {text:?}")
    };
    (peak / 1024.0, seconds)
}

fn stays_below(name: &str, count: u64, size: u64, compressions: &[&str], bound: f64) {
    if !Path::new(TIME).exists() {
        tool::skipped(tool::Need::Program("GNU time"));
        return;
    }
    let scratch = Scratch::new(name);
    let tar = scratch.join("source.tar");
    archive::of_files(&tar, count, size).unwrap_or_else(|e| panic!("{}: {e}", tar.display()));
    let mut failures = Vec::new();
    for compression in compressions {
        let definition = scratch.join("image.toml");
        let text = archive::definition(
            &tar,
            "bounds",
            &format!("[root]\ncompression = {compression:?}\n"),
        );
        std::fs::write(&definition, text).unwrap_or_else(|e| panic!("{e}"));
        for jobs in [2, 8] {
            let out = scratch.join("out");
            let (peak, seconds) = build(&definition, &out, jobs);
            println!("{name}, {compression}, {jobs} jobs: {peak:.0} MiB, {seconds:.1} s");
            if peak > bound {
                failures.push(format!("{compression}, {jobs} jobs: {peak:.0} MiB"));
            }
        }
    }
    assert!(failures.is_empty(), "more than {bound} MiB: {failures:?}");
}

#[test]
#[ignore = "builds 2 GiB six times"]
fn one_file_of_2_gib_takes_at_most_192_mib() {
    stays_below("one-file", 1, 2 << 30, &["none", "lz4hc", "zstd"], 192.0);
}

#[test]
#[ignore = "builds 2 GiB six times"]
fn many_files_of_2_gib_together_take_at_most_192_mib() {
    stays_below(
        "many-files",
        131_072,
        16 << 10,
        &["none", "lz4hc", "zstd"],
        192.0,
    );
}

#[test]
#[ignore = "builds a million inodes and lists them"]
fn a_million_empty_files_are_built_and_mounted() {
    const COUNT: u64 = 1_000_000;
    // An inode costs memory, whatever is in it: some 240 bytes each were measured.
    const BOUND: f64 = 320.0;
    let scratch = Scratch::new("million");
    let tar = scratch.join("source.tar");
    archive::of_files(&tar, COUNT, 0).unwrap_or_else(|e| panic!("{}: {e}", tar.display()));
    let definition = scratch.join("image.toml");
    std::fs::write(&definition, archive::definition(&tar, "million", ""))
        .unwrap_or_else(|e| panic!("{e}"));
    let image = Image {
        dir: scratch.join("out"),
        stem: "million_1".to_owned(),
    };
    let (peak, seconds) = build(&definition, &image.dir, 2);
    println!("a million empty files: {peak:.0} MiB, {seconds:.1} s");
    assert!(peak <= BOUND, "{peak:.0} MiB");
    if !tool::root() || !tool::mounts_erofs() {
        return;
    }
    let mounted = tool::Mounted::new(&image.path("root.erofs"), scratch.join("mounted"));
    let found = tool::run(
        tool::command("find")
            .arg(mounted.path().join("srv"))
            .args(["-type", "f", "-size", "0", "-links", "1", "-printf", "x"]),
    );
    assert_eq!(found.len() as u64, COUNT);
}
