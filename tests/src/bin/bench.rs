//! Measures the writer of the root file system beside mkfs.erofs, on one archive in one run. `tests/bench` starts it.
//!
//!     bench ARCHIVE [--newer DIR] [--rounds N] [ALGORITHM ...]
//!     bench write ARCHIVE OUT ALGORITHM CLUSTER JOBS       what is measured: archive -> OUT and OUT.verity
//!
//! Ours writes the hash tree too, mkfs.erofs does not. Rounds are interleaved; each figure is the median.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use adamant::definition::Compression;
use adamant::erofs::{self, BLOCK, Options, Sink};
use adamant::verity;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("write") => write(&arguments[1..]),
        Some(_) => compare(&arguments),
        None => Err("bench ARCHIVE [--newer DIR] [--rounds N] [none|lz4|lz4hc|zstd ...]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

struct ToFile(File, u64);

impl Sink for ToFile {
    fn append(&mut self, blocks: &[u8]) -> io::Result<()> {
        self.0.write_all_at(blocks, self.1)?;
        self.1 += blocks.len() as u64;
        Ok(())
    }

    fn first(&mut self, block: &[u8; BLOCK]) -> io::Result<()> {
        self.0.write_all_at(block, 0)
    }
}

fn write(arguments: &[String]) -> Result<()> {
    let [archive, out, algorithm, cluster, jobs] = arguments else { return Err("write ARCHIVE OUT ALGORITHM CLUSTER JOBS".into()) };
    let compression = match algorithm.as_str() {
        "none" => Compression::None,
        "lz4" => Compression::Lz4,
        "lz4hc" => Compression::Lz4hc,
        "zstd" => Compression::Zstd(3),
        other => Compression::Zstd(other.strip_prefix("zstd:").ok_or("not an algorithm")?.parse()?),
    };
    let jobs = jobs.parse()?;
    let tree = adamant_tests::archive::load(Path::new(archive))?;
    let options = Options { compression, cluster: cluster.parse()?, uuid: verity::uuid_from(b"bench", "bench"), label: "bench".to_owned(), jobs };
    let mut file = ToFile(File::create(out)?, BLOCK as u64);
    let mut hasher = verity::Hasher::new(&verity::salt("bench"));
    let mut sink = verity::HashingSink::new(&mut hasher, &mut file, jobs);
    erofs::write(&tree, &options, &mut sink)?;
    let mut tree_file = io::BufWriter::new(File::create(format!("{out}.verity"))?);
    let (root, _) = hasher.finish(verity::uuid("bench"), &mut tree_file)?;
    tree_file.flush()?;
    println!("{root}");
    Ok(())
}

/// One command of the table.
struct Contender {
    name: String,
    command: Vec<String>,
    image: PathBuf,
    runs: Vec<Figures>,
}

#[derive(Clone, Copy)]
struct Figures {
    wall: f64,
    user: f64,
    rss: f64,
}

fn compare(arguments: &[String]) -> Result<()> {
    let mut archive = None;
    let mut newer = std::env::var("NEWER_TOOLS").ok();
    let mut rounds = 3;
    let mut algorithms = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--newer" => newer = rest.next().cloned(),
            "--rounds" => rounds = rest.next().ok_or("--rounds N")?.parse()?,
            _ if archive.is_none() => archive = Some(std::fs::canonicalize(argument)?),
            _ => algorithms.push(argument.clone()),
        }
    }
    let archive = archive.ok_or("which archive?")?;
    if algorithms.is_empty() {
        algorithms = ["none", "lz4", "lz4hc", "zstd"].map(str::to_owned).to_vec();
    }
    let scratch = adamant_tests::scratch::Scratch::new("bench");
    let mut contenders = Vec::new();
    for algorithm in &algorithms {
        contenders.extend(rows(algorithm, &archive, scratch.path(), newer.as_deref())?);
    }
    for round in 0..rounds {
        for contender in &mut contenders {
            contender.runs.push(measure(contender, scratch.path())?);
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    println!("| command | wall s | user s | RSS MiB | image MiB |\n|---|---|---|---|---|");
    for contender in &contenders {
        let median = |pick: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = contender.runs.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let image = std::fs::metadata(&contender.image)?.len() as f64 / f64::from(1 << 20);
        println!("| {} | {:.2} | {:.2} | {:.0} | {image:.1} |", contender.name, median(|f| f.wall), median(|f| f.user), median(|f| f.rss));
    }
    Ok(())
}

/// Ours and the peers' for one algorithm.
fn rows(algorithm: &str, archive: &Path, scratch: &Path, newer: Option<&str>) -> Result<Vec<Contender>> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let own = text(&std::env::current_exe()?);
    let jobs = std::thread::available_parallelism()?.to_string();
    let image = scratch.join(format!("ours-{algorithm}"));
    let mut rows = vec![Contender {
        name: format!("ours {algorithm}, cluster 64K, and its verity tree"),
        command: [&own, "write", &text(archive), &text(&image), algorithm, "65536", &jobs].map(str::to_owned).to_vec(),
        image,
        runs: Vec::new(),
    }];
    let compress: Vec<String> = match algorithm {
        "none" => vec![],
        "zstd" => vec!["-zzstd,3".into(), "-C65536".into()],
        other => vec![format!("-z{}", other.replace(':', ",")), "-C65536".into()],
    };
    if let Some(dir) = newer {
        // mkfs.erofs 1.9 works in a chroot: archive and image must be below the folder it is given.
        let inside = scratch.join("archive.tar");
        if !inside.exists() && std::fs::hard_link(archive, &inside).is_err() {
            std::fs::copy(archive, &inside)?;
        }
        let image = scratch.join(format!("newer-{algorithm}"));
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = vec!["unshare".to_owned(), "-m".into(), "sh".into(), "-c".into()];
        command.push("mkdir -p \"$0/mnt\" && mount --bind . \"$0/mnt\" && mount -t proc proc \"$0/proc\" && d=$0 && exec chroot \"$d\" sh -c 'cd /mnt && exec \"$@\"' sh \"$@\"".into());
        command.extend([dir.to_owned(), "mkfs.erofs".into(), "--quiet".into(), "--tar=f".into()]);
        command.extend(compress.iter().cloned());
        command.extend([name, "archive.tar".into()]);
        rows.push(Contender { name: format!("mkfs.erofs 1.9 {} --tar=f", compress.join(" ")), command, image, runs: Vec::new() });
    }
    // 1.5 takes folders only, and knows no zstd.
    if algorithm != "zstd" && !algorithm.starts_with("zstd:") && adamant_tests::tool::have("mkfs.erofs") {
        let folder = scratch.join("folder");
        if !folder.exists() {
            std::fs::create_dir(&folder)?;
            Command::new("tar").args(["--xattrs", "--xattrs-include=*", "-xpf"]).arg(archive).arg("-C").arg(&folder).status()?;
        }
        let image = scratch.join(format!("host-{algorithm}"));
        let mut command = vec!["mkfs.erofs".to_owned(), "--quiet".into()];
        command.extend(compress.iter().cloned());
        command.extend([text(&image), text(&folder)]);
        rows.push(Contender { name: format!("mkfs.erofs of this machine {}, from a folder", compress.join(" ")), command, image, runs: Vec::new() });
    }
    Ok(rows)
}

fn measure(contender: &Contender, scratch: &Path) -> Result<Figures> {
    let _ = std::fs::remove_file(&contender.image);
    let report = scratch.join("time");
    let output = Command::new("/usr/bin/time").args(["-f", "%e %U %M", "-o"]).arg(&report).args(&contender.command).current_dir(scratch).output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", contender.command.join(" "), String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = std::fs::read_to_string(&report)?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next().and_then(std::result::Result::ok).ok_or("time gave no figures");
    Ok(Figures { wall: next()?, user: next()?, rss: next()? / 1024.0 })
}
