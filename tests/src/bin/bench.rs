//! Measures building a root file system beside mkfs.erofs, on one archive in one run, or what
//! building a definition takes. `tests/bench` starts it.
//!
//!     bench [ARCHIVE] [--rounds N] [--json FILE] [none|lz4|lz4hc|zstd|zstd:LEVEL ...]
//!     bench DEFINITION [--rounds N] [--json FILE]
//!     bench write DEFINITION OUT JOBS [REFERENCE]     what "root" measures: sources -> file system
//! and hash tree, as `adamant build` does it
//!
//! `root` is what mkfs.erofs does, and the hash tree with it; `build` is the whole of `adamant
//! build`: also the agent and its policy in the image, checks, initramfs and disk image where the
//! archive has a kernel, digests and the manifest. With mkfs.erofs, veritysetup and sha256sum
//! one after the other, others get as far. What is built last is verified, by us and by
//! veritysetup. Rounds are interleaved; each figure is the median. Each row is checked after each
//! round: an image was written and fsck.erofs finds no fault in it, or the root hash is another one
//! exactly where something changed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use adamant::definition::{Definition, Optimize, ZSTD_LEVEL};
use adamant::derive::derive_uuid;
use adamant::erofs::{self, BLOCK, BlockSink, ErofsOptions, Reference};
use adamant::io::part::Part;
use adamant::pipeline::compression;
use adamant::source::{self, CacheTrust, LoadContext};
use adamant::verity;
use adamant_tests::scratch::Scratch;
use adamant_tests::{archive, image, tool};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The cluster that all are given, bytes.
const CLUSTER: &str = "65536";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("write") => write(&arguments[1..]),
        _ => compare(&arguments),
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

impl BlockSink for ToFile {
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
    let (definition, out, jobs, reference) = match arguments {
        [definition, out, jobs] => (definition, out, jobs, None),
        [definition, out, jobs, reference] => (definition, out, jobs, Some(reference)),
        _ => return Err("write DEFINITION OUT JOBS [REFERENCE]".into()),
    };
    let reference = reference
        .map(|path| {
            Reference::read(Part::whole(File::open(path)?)?)
                .map_err(|e| io::Error::other(e.to_string()))
        })
        .transpose()?;
    let definition = Definition::read(Path::new(definition)).map_err(|e| e.to_string())?;
    let spool = Path::new(out)
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned();
    let context = LoadContext {
        cache: spool.clone(),
        spool,
        use_cache: false,
        trust_cache: CacheTrust::Optimistic,
    };
    let mut sources = Vec::new();
    let tree = source::load(&definition, &context, &mut sources).map_err(|e| e.to_string())?;
    let jobs = jobs.parse()?;
    let options = ErofsOptions {
        compression: compression::algorithm(definition.root.compression)
            .map_err(|e| e.to_string())?,
        cluster: definition.root.cluster,
        fragments: definition.root.optimize == Optimize::Size,
        uuid: derive_uuid(b"bench", "bench"),
        label: "bench".to_owned(),
        jobs,
        spool: context.spool.clone(),
        cache: None,
        reference: reference.map(Arc::new),
    };
    let mut file = ToFile(File::create(out)?, BLOCK as u64);
    let mut hasher = verity::VerityHasher::new(&verity::salt("bench"));
    let mut sink = verity::HashingSink::new(&mut hasher, &mut file, jobs);
    erofs::write(&tree, &options, &mut sink).map_err(|e| e.to_string())?;
    let mut tree_file = io::BufWriter::new(File::create(format!("{out}.verity"))?);
    hasher.finish(verity::uuid("bench"), &mut tree_file)?;
    tree_file.flush()?;
    for source in &sources {
        source.sha256.wait().map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Instead of an algorithm: the least bytes, with zstd:3.
const SMALLEST: &str = "smallest";

/// One command of the table.
struct Contender {
    name: String,
    command: Vec<String>,
    /// What it makes, if anything.
    image: Option<PathBuf>,
    /// What shows that it did what it is measured for.
    proof: Proof,
    runs: Vec<Figures>,
    /// Why it could not do it.
    refusal: Option<String>,
}

impl Contender {
    fn new(name: impl Into<String>, image: Option<PathBuf>, command: Vec<String>) -> Contender {
        let proof = if image.is_some() {
            Proof::Image
        } else {
            Proof::Status
        };
        Contender {
            name: name.into(),
            command,
            image,
            proof,
            runs: Vec::new(),
            refusal: None,
        }
    }

    /// The same, shown by a file with a root hash.
    fn shown_by(self, proof: Proof) -> Contender {
        Contender { proof, ..self }
    }
}

/// What shows that a row measured what its name says.
enum Proof {
    /// The exit code: a verification.
    Status,
    /// The image was written anew, and fsck.erofs accepts it.
    Image,
    /// The root hash in this file is another one than before; there may have been none.
    OtherHash(PathBuf),
    /// The root hash in this file is the same as before.
    SameHash(PathBuf),
}

impl Proof {
    /// The root hash before or after a round.
    fn hash(&self) -> Option<String> {
        match self {
            Proof::OtherHash(path) | Proof::SameHash(path) => std::fs::read_to_string(path).ok(),
            Proof::Status | Proof::Image => None,
        }
    }

    fn check(&self, image: Option<&Path>, before: Option<String>) -> Result<()> {
        match self {
            Proof::Status => Ok(()),
            Proof::Image => check_image(image.ok_or("it names no image")?),
            Proof::OtherHash(path) => match self.hash() {
                None => Err(format!("{}: there is no root hash", path.display()).into()),
                after if after == before => {
                    Err("the root hash is the same as before: nothing changed".into())
                }
                _ => Ok(()),
            },
            Proof::SameHash(path) => match self.hash() {
                None => Err(format!("{}: there is no root hash", path.display()).into()),
                after if after != before => Err("the root hash is another one than before".into()),
                _ => Ok(()),
            },
        }
    }
}

/// Another project's judgement of an image; without a newer fsck.erofs, that it is there.
fn check_image(image: &Path) -> Result<()> {
    let length = std::fs::metadata(image)
        .map_err(|e| format!("{}: nothing was written: {e}", image.display()))?
        .len();
    if length == 0 {
        return Err(format!("{}: it is empty", image.display()).into());
    }
    let Some(mut command) = tool::newer("fsck.erofs") else {
        return Ok(());
    };
    let output = tool::output(command.arg(image));
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("fsck.erofs: {}", tool::lossy(&output.stderr)).into()),
    }
}

/// Seconds, seconds, seconds and MiB.
#[derive(Clone, Copy)]
struct Figures {
    wall: f64,
    user: f64,
    system: f64,
    rss: f64,
}

/// What is wanted.
struct Wanted {
    /// An archive or a definition.
    given: Option<PathBuf>,
    rounds: u32,
    json: Option<PathBuf>,
    algorithms: Vec<String>,
}

impl Wanted {
    fn parse(arguments: &[String]) -> Result<Wanted> {
        let mut wanted = Wanted {
            given: None,
            rounds: 3,
            json: None,
            algorithms: Vec::new(),
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--rounds" => {
                    wanted.rounds = rest
                        .next()
                        .and_then(|n| n.parse().ok())
                        .filter(|&n: &u32| n > 0)
                        .ok_or("--rounds needs a number from 1 on")?
                }
                "--json" => wanted.json = Some(rest.next().ok_or("--json needs a file")?.into()),
                "none" | "lz4" | "lz4hc" | "zstd" | SMALLEST => {
                    wanted.algorithms.push(argument.clone())
                }
                _ if argument.starts_with("zstd:") => wanted.algorithms.push(argument.clone()),
                _ if argument.starts_with('-') || wanted.given.is_some() => {
                    let usage = "bench [ARCHIVE|DEFINITION] [--rounds N] [--json FILE] [none|lz4|lz4hc|zstd|zstd:LEVEL|smallest ...]";
                    return Err(format!("{argument}: {usage}").into());
                }
                _ => {
                    wanted.given = Some(
                        std::fs::canonicalize(argument).map_err(|e| format!("{argument}: {e}"))?,
                    )
                }
            }
        }
        if wanted.algorithms.is_empty() {
            wanted.algorithms = ["none", "lz4", "lz4hc", "zstd:3", "zstd", SMALLEST]
                .map(str::to_owned)
                .to_vec();
        }
        Ok(wanted)
    }
}

fn compare(arguments: &[String]) -> Result<()> {
    let wanted = Wanted::parse(arguments)?;
    if !Path::new(TIME).exists() {
        return Err(format!("{TIME} is missing: apt-get install time").into());
    }
    let scratch = Scratch::new("bench");
    let given = wanted.given.clone().unwrap_or_else(archive::debian);
    let mut contenders = Vec::new();
    if given.is_dir() {
        contenders.extend(builds(&given, scratch.path())?);
    } else {
        let folder = unpack(&given, &scratch)?;
        for algorithm in &wanted.algorithms {
            contenders.extend(rows(algorithm, &given, folder.as_deref(), scratch.path())?);
        }
    }
    for round in 1..=wanted.rounds {
        for contender in &mut contenders {
            eprint!(
                "\r\x1b[Kround {round} of {}: {}",
                wanted.rounds, contender.name
            );
            match measure(contender, scratch.path()) {
                Ok(figures) => contender.runs.push(figures),
                Err(why) if round == 1 => contender.refusal = Some(why.to_string()),
                Err(why) => return Err(why),
            }
        }
        // An archive's own kernel may not read what another row writes: that row is left out,
        // aloud.
        for contender in contenders.extract_if(.., |contender| contender.refusal.is_some()) {
            eprintln!(
                "\r\x1b[Kleft out: {}: {}",
                contender.name,
                contender.refusal.unwrap_or_default()
            );
        }
    }
    eprint!("\r\x1b[K");
    show(&wanted, &given, &contenders)
}

fn show(wanted: &Wanted, given: &Path, contenders: &[Contender]) -> Result<()> {
    let processors = std::thread::available_parallelism()?;
    let bytes = if given.is_dir() {
        0
    } else {
        std::fs::metadata(given)?.len()
    };
    let size = if bytes > 0 {
        format!(": {:.1} MB", bytes as f64 / 1e6)
    } else {
        String::new()
    };
    println!(
        "{}{size}; {processors} processors; medians of {}, interleaved\n",
        given.display(),
        wanted.rounds
    );
    println!(
        "| command | wall s | user s | system s | RSS MiB | image MB |\n|---|---|---|---|---|---|"
    );
    let mut rows = Vec::new();
    for Contender {
        name, image, runs, ..
    } in contenders
    {
        let median = |pick: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let image = image
            .as_ref()
            .map(|image| std::fs::metadata(image).map(|found| found.len()))
            .transpose()?;
        let (wall, user, system, rss) = (
            median(|f| f.wall),
            median(|f| f.user),
            median(|f| f.system),
            median(|f| f.rss),
        );
        let shown = image
            .map(|image| format!("{:.2}", image as f64 / 1e6))
            .unwrap_or_default();
        println!("| {name} | {wall:.2} | {user:.2} | {system:.2} | {rss:.0} | {shown} |");
        rows.push(serde_json::json!({
            "command": name, "wall_s": wall, "user_s": user, "system_s": system, "rss_mib": rss, "image_bytes": image,
            "runs": runs.iter().map(|run| run.wall).collect::<Vec<_>>(),
        }));
    }
    if let Some(path) = &wanted.json {
        let all = serde_json::json!({ "input": given, "bytes": bytes, "processors": processors, "rounds": wanted.rounds, "rows": rows });
        std::fs::write(path, format!("{all:#}\n"))
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// What building a definition takes, from one that keeps nothing to one that has nothing to do.
fn builds(definition: &Path, scratch: &Path) -> Result<Vec<Contender>> {
    let copy = scratch.join("definition");
    tool::run(tool::command("cp").arg("-r").arg(definition).arg(&copy));
    let _ = std::fs::remove_dir_all(copy.join("out"));
    let (cache, out) = (scratch.join("cache"), scratch.join("out"));
    let mut build = image::build_command(&copy, &out);
    build.arg("--quiet").arg("--cache").arg(&cache);
    // What Debian's packages are unpacked to is kept, as a build keeps it, and nothing else.
    let fresh = format!(
        "find {} -mindepth 1 -maxdepth 1 ! -name debian -exec rm -rf {{}} + ; rm -rf {}",
        quoted(&cache),
        quoted(&out)
    );
    let line = format!(
        "printf '\\n[[file]]\\npath = \"/etc/line-%s\"\\ncontent = \"one\"\\n' $$ >>{}",
        quoted(&copy.join("image.toml"))
    );
    let then = |before: &str, command: Vec<String>| {
        vec![
            "sh".to_owned(),
            "-c".to_owned(),
            format!("{before}; exec \"$@\""),
            "sh".to_owned(),
        ]
        .into_iter()
        .chain(command)
        .collect()
    };
    // Once before all, for the packages.
    tool::run(&mut build);
    let definition = Definition::read(&copy).map_err(|e| e.to_string())?;
    let (hash, root) = ["roothash", "root.erofs"]
        .map(|suffix| out.join(format!("{}.{suffix}", definition.stem())))
        .into();
    // The other content has the same version.
    let build = words(build.arg("--force"));
    let fresh = then(&fresh, build.clone());
    Ok(vec![
        // It removes the artifacts first.
        Contender::new("adamant build, packages unpacked before", Some(root), fresh),
        Contender::new("the same, one line more", None, then(&line, build.clone()))
            .shown_by(Proof::OtherHash(hash.clone())),
        Contender::new("the same, nothing changed", None, build).shown_by(Proof::SameHash(hash)),
        Contender::new(
            "adamant verify",
            None,
            words(image::builder().arg("verify").arg(&out)),
        ),
    ])
}

/// The archive as a folder, for an mkfs.erofs that reads nothing else; `None` where there is none,
/// or only one that reads archives.
fn unpack(archive: &Path, scratch: &Scratch) -> Result<Option<PathBuf>> {
    if !tool::have("mkfs.erofs") || !tool::root() {
        return Ok(None);
    }
    let folder = scratch.join("folder");
    std::fs::create_dir(&folder)?;
    tool::run(
        tool::command("tar")
            .args(["--xattrs", "--xattrs-include=*", "-xpf"])
            .arg(archive)
            .arg("-C")
            .arg(&folder),
    );
    Ok(Some(folder))
}

/// Ours and the peers' for one algorithm.
fn rows(
    algorithm: &str,
    archive: &Path,
    folder: Option<&Path>,
    scratch: &Path,
) -> Result<Vec<Contender>> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut rows = Vec::new();
    let mut add = |name: String, image: PathBuf, command: Vec<String>| {
        rows.push(Contender::new(name, Some(image), command))
    };

    let dir = scratch.join(algorithm.replace(':', "-"));
    std::fs::create_dir(&dir)?;
    let definition = dir.join("image.toml");
    std::fs::write(
        &definition,
        if algorithm == SMALLEST {
            archive::smallest(archive)
        } else {
            archive::compressed(archive, algorithm)
        },
    )?;
    let jobs = std::thread::available_parallelism()?.to_string();
    let image = dir.join("root");
    add(
        format!("adamant root {algorithm}"),
        image.clone(),
        vec![
            text(&std::env::current_exe()?),
            "write".to_owned(),
            text(&definition),
            text(&image),
            jobs,
        ],
    );
    let out = dir.join("out");
    let root = out.join("bench_1.root.erofs");
    add(
        format!("adamant build {algorithm}"),
        root.clone(),
        words(image::build_command(&definition, &out).args(["--quiet", "--no-cache"])),
    );
    // A cache that the first round fills; --timings has it build though nothing changed.
    let kept = [
        OsStr::new("--quiet"),
        OsStr::new("--cache"),
        dir.join("cache").as_os_str(),
        OsStr::new("--timings"),
        dir.join("timings.html").as_os_str(),
    ]
    .map(OsStr::to_owned);
    // Filled before the first round, which would be a build without a cache otherwise.
    tool::run(image::build_command(&definition, &out).args(&kept));
    add(
        format!("adamant build {algorithm}, all in the cache"),
        root.clone(),
        words(image::build_command(&definition, &out).args(kept)),
    );

    let compress: Vec<String> = match algorithm {
        "none" => vec![],
        SMALLEST => ["-zzstd,3", "-C131072", "-Eall-fragments,dedupe"]
            .map(str::to_owned)
            .to_vec(),
        "zstd" => vec![format!("-zzstd,{ZSTD_LEVEL}"), format!("-C{CLUSTER}")],
        other => vec![
            format!("-z{}", other.replace(':', ",")),
            format!("-C{CLUSTER}"),
        ],
    };
    let label = if compress.is_empty() {
        String::new()
    } else {
        format!(" {}", compress.join(" "))
    };
    if let Some(mut command) = tool::newer("mkfs.erofs") {
        let version = version(tool::newer("mkfs.erofs"));
        let image = dir.join("newer");
        command
            .arg("--quiet")
            .args(&compress)
            .arg("--tar=f")
            .arg(&image)
            .arg(archive);
        let made = words(&command);
        // The same, and then what we have done by then, too.
        let after = format!(
            "\"$@\" && veritysetup format {0} {0}.verity >{0}.said && sha256sum {0} {0}.verity >{0}.sums",
            quoted(&image)
        );
        let all = ["sh", "-c", &after, "sh"]
            .into_iter()
            .map(str::to_owned)
            .chain(made.clone())
            .collect();
        add(
            format!("mkfs.erofs {version}{label} --tar=f"),
            image.clone(),
            made,
        );
        if tool::have("veritysetup") {
            add(
                format!("mkfs.erofs {version}{label} --tar=f, veritysetup, sha256sum"),
                image,
                all,
            );
        }
    }
    if let Some(folder) = folder {
        // An old one knows no zstd.
        let known = tool::lossy(&tool::output(tool::command("mkfs.erofs").arg("--help")).stdout)
            + &tool::lossy(&tool::output(tool::command("mkfs.erofs").arg("-V")).stdout);
        if !(algorithm.starts_with("zstd") || algorithm == SMALLEST) || known.contains("zstd") {
            let image = dir.join("installed");
            let mut command = vec!["mkfs.erofs".to_owned(), "--quiet".to_owned()];
            command.extend(compress);
            command.extend([text(&image), text(folder)]);
            add(
                format!(
                    "mkfs.erofs {}{label}, from a folder",
                    version(Some(tool::command("mkfs.erofs")))
                ),
                image,
                command,
            );
        }
    }
    let verify = |flags: &[&str]| words(image::builder().arg("verify").args(flags).arg(&root));
    rows.push(Contender::new(
        format!("adamant verify, {algorithm}"),
        None,
        verify(&[]),
    ));
    rows.push(Contender::new(
        format!("adamant verify --read-data, {algorithm}"),
        None,
        verify(&["--read-data"]),
    ));
    if tool::have("veritysetup") {
        let beside = |kind: &str| root.with_file_name(format!("bench_1.{kind}"));
        let mut command = tool::command("veritysetup");
        command
            .arg("verify")
            .arg(&root)
            .arg(beside("root.verity"))
            .arg("--root-hash-file")
            .arg(beside("roothash"));
        rows.push(Contender::new(
            format!("veritysetup verify, {algorithm}"),
            None,
            words(&command),
        ));
    }
    Ok(rows)
}

/// A command's program and arguments.
fn words(command: &Command) -> Vec<String> {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// A path as a word of the shell's.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// What an mkfs.erofs calls its own version.
fn version(command: Option<Command>) -> String {
    let said = command
        .map(|mut command| tool::lossy(&tool::output(command.arg("-V")).stdout))
        .unwrap_or_default();
    said.lines()
        .next()
        .and_then(|line| line.split(' ').next_back())
        .unwrap_or("of unknown version")
        .to_owned()
}

/// GNU time: its figures are those of the process and what that waited for.
const TIME: &str = "/usr/bin/time";

fn measure(contender: &Contender, scratch: &Path) -> Result<Figures> {
    if let Some(image) = &contender.image {
        let _ = std::fs::remove_file(image);
    }
    let before = contender.proof.hash();
    let report = scratch.join("time");
    let output = tool::output(
        tool::command(TIME)
            .args(["-f", "%e %U %S %M", "-o"])
            .arg(&report)
            .args(&contender.command)
            .current_dir(scratch),
    );
    if !output.status.success() {
        let said = tool::lossy(&output.stderr);
        return Err(said
            .lines()
            .find(|line| line.starts_with("error"))
            .unwrap_or(&said)
            .to_owned()
            .into());
    }
    contender.proof.check(contender.image.as_deref(), before)?;
    let text = std::fs::read_to_string(&report)?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || {
        numbers
            .next()
            .and_then(std::result::Result::ok)
            .ok_or("time gave no figures")
    };
    Ok(Figures {
        wall: next()?,
        user: next()?,
        system: next()?,
        rss: next()? / 1024.0,
    })
}
