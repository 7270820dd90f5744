//! Measures how fast Debian's kernel reads an archive's files from our image and from mkfs.erofs'
//! of the same algorithm, in a machine. `tests/bench-reads` starts it.
//!
//!     bench-reads [ARCHIVE] [lz4|lz4hc|zstd:LEVEL ...]
//!
//! All images are disks of one machine without hardware help; its init reads the same files from
//! each, in order of their paths and then at random places, in rounds that are interleaved. Each
//! figure is the median. "read MB" is what the disk was asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use adamant_tests::image::{self, Tiny};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::{alter, archive, tool};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The machine and what it reads many times take their time.
const DEADLINE: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    match compare(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-reads: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &[String]) -> Result<()> {
    let (mut given, mut algorithms) = (None, Vec::new());
    for argument in arguments {
        match argument.as_str() {
            "none" | "lz4" | "lz4hc" => algorithms.push(argument.clone()),
            _ if argument.starts_with("zstd:") => algorithms.push(argument.clone()),
            _ if argument.starts_with('-') || given.is_some() => {
                return Err(format!(
                    "{argument}: bench-reads [ARCHIVE] [lz4|lz4hc|zstd:LEVEL ...]"
                )
                .into());
            }
            _ => {
                given =
                    Some(std::fs::canonicalize(argument).map_err(|e| format!("{argument}: {e}"))?)
            }
        }
    }
    if algorithms.is_empty() {
        algorithms = ["lz4hc", "zstd:3"].map(str::to_owned).to_vec();
    }
    let archive = given.unwrap_or_else(archive::debian);
    let scratch = Scratch::new("bench-reads");
    let mut images = Vec::new();
    for algorithm in &algorithms {
        let dir = scratch.join(algorithm.replace(':', "-"));
        std::fs::create_dir(&dir)?;
        images.push((
            format!("adamant {algorithm}"),
            ours(&archive, algorithm, &dir)?,
        ));
        let Some(mut command) = tool::newer("mkfs.erofs") else {
            return Err("no mkfs.erofs that reads archives".into());
        };
        let peer = dir.join("peer");
        if algorithm != "none" {
            command.args([
                format!("-z{}", algorithm.replace(':', ",")),
                "-C65536".to_owned(),
            ]);
        }
        tool::run(
            command
                .args(["--quiet", "--tar=f"])
                .arg(&peer)
                .arg(&archive),
        );
        images.push((format!("mkfs.erofs {algorithm}"), peer));
    }
    let figures = read(&images, &scratch)?;
    println!(
        "| image | MB | in order: s | MB/s | read MB | at random: reads/s | read MB |\n|---|---|---|---|---|---|---|"
    );
    for (index, (name, path)) in images.iter().enumerate() {
        let row = |kind: &str| {
            figures
                .get(&(index, kind.to_owned()))
                .cloned()
                .ok_or_else(|| format!("{name}: nothing measured"))
        };
        let ((time, bytes, asked), (random, random_bytes, random_asked)) =
            (row("sequential")?, row("random")?);
        let (mega, second) = (
            |bytes: u64| bytes as f64 / 1e6,
            |micros: u64| micros as f64 / 1e6,
        );
        println!(
            "| {name} | {:.2} | {:.2} | {:.1} | {:.1} | {:.0} | {:.1} |",
            mega(std::fs::metadata(path)?.len()),
            second(time),
            mega(bytes) / second(time),
            mega(asked),
            random_bytes.div_ceil(4096) as f64 / second(random),
            mega(random_asked)
        );
    }
    Ok(())
}

fn ours(archive: &Path, algorithm: &str, dir: &Path) -> Result<PathBuf> {
    let definition = dir.join("image.toml");
    std::fs::write(&definition, archive::compressed(archive, algorithm))?;
    let out = dir.join("out");
    image::build(&definition, &out);
    Ok(out.join("bench_1.root.erofs"))
}

/// Microseconds, bytes given and bytes that the disk was asked for.
type Figures = (u64, u64, u64);
/// By image and kind of reading.
type By<T> = BTreeMap<(usize, String), T>;

fn read(images: &[(String, PathBuf)], scratch: &Scratch) -> Result<By<Figures>> {
    let tiny = Tiny::usual().build();
    let disk = scratch.join("disk.raw");
    alter::copy(&tiny.path("raw"), &disk);
    let names: Vec<String> = (0..images.len())
        .map(|index| format!("/dev/vd{}", char::from(b'b' + index as u8)))
        .collect();
    let mut setup = Setup::of(&tiny)
        .disk(&disk)
        .memory("1G")
        .processors(2)
        .deadline(DEADLINE)
        .append(&format!("tiny.speed={}", names.join(",")));
    for (_, path) in images {
        setup = setup.disk(path);
    }
    let console = setup.start(scratch).wait_for_end();
    let mut all: By<Vec<Figures>> = By::new();
    for line in console
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("tiny: speed /dev/vd"))
    {
        let words: Vec<&str> = line.split(' ').collect();
        let [device, _, kind, numbers @ ..] = &words[..] else {
            continue;
        };
        let numbers: Vec<u64> = numbers
            .iter()
            .filter_map(|word| word.parse().ok())
            .collect();
        if let (Some(letter), [time, bytes, asked]) = (device.bytes().next(), &numbers[..]) {
            all.entry((usize::from(letter - b'b'), (*kind).to_owned()))
                .or_default()
                .push((*time, *bytes, *asked));
        }
    }
    if all.len() != 2 * images.len() {
        return Err(format!(
            "the machine measured {} of {}:\n{console}",
            all.len(),
            2 * images.len()
        )
        .into());
    }
    Ok(all
        .into_iter()
        .map(|(what, mut runs)| {
            runs.sort_unstable();
            (what, runs[runs.len() / 2])
        })
        .collect())
}
