//! Facts about the machine, which the init always prints.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use adamant_contract::paths::BOOT_REPORT_PATH;
use adamant_contract::report::BootReport;

/// Prints all facts.
pub fn print_facts() {
    println!("tiny: arguments {:?}", std::env::args().collect::<Vec<_>>());
    let mut variables: Vec<(String, String)> = std::env::vars().collect();
    variables.sort();
    println!("tiny: environment {variables:?}");
    println!(
        "tiny: machine-id {}",
        fs::read_to_string("/etc/machine-id")
            .unwrap_or_default()
            .trim()
    );
    println!(
        "tiny: hostname {}",
        fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap_or_default()
            .trim()
    );
    let fault = |name: &&str| {
        format!(
            "{name}={}",
            fs::read_to_string(format!("/proc/sys/kernel/{name}"))
                .unwrap_or_default()
                .trim()
        )
    };
    println!(
        "tiny: on faults {}",
        [
            "panic",
            "panic_on_oops",
            "softlockup_panic",
            "hung_task_panic"
        ]
        .iter()
        .map(fault)
        .collect::<Vec<_>>()
        .join(" ")
    );
    for line in fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
    {
        println!("tiny: mount {line}");
    }
    print_report();
    print_credentials();
    print_pcr();
    try_to_write_the_root();
    count_boot();
}

fn print_report() {
    let report = match fs::read(BOOT_REPORT_PATH)
        .and_then(|bytes| serde_json::from_slice::<BootReport>(&bytes).map_err(io::Error::other))
    {
        Ok(report) => report,
        Err(e) => return println!("tiny: no report: {BOOT_REPORT_PATH}: {e}"),
    };
    println!("tiny: image {} {}", report.image_id, report.image_version);
    println!("tiny: kernel {}", report.kernel);
    println!("tiny: root hash {}", report.root_hash);
    println!(
        "tiny: root {} blocks, {} checked, on corruption {}",
        report.root.blocks, report.root.blocks_checked, report.root.on_corruption
    );
    println!(
        "tiny: signed by {} ({})",
        report.signature.signer.as_deref().unwrap_or("nobody"),
        report.signature.rule
    );
    let firmware = &report.firmware;
    let kind = if firmware.uefi { "uefi" } else { "none" };
    println!(
        "tiny: firmware {kind}, secure boot {:?}, phases {}",
        firmware.secure_boot,
        firmware.phases.join(" ")
    );
    println!("tiny: kernel on the signature: {}", report.signature.kernel);
    println!("tiny: identity {}", report.identity.source);
    for volume in &report.volumes {
        println!(
            "tiny: volume {} {} {} {} bytes, grown by {}, seeded {}, replaced {}, kept [{}]",
            volume.name,
            volume.mount,
            volume.state,
            volume.bytes,
            volume.grown_by,
            volume.seeded,
            volume.replaced,
            volume.kept.join(" ")
        );
    }
    println!("tiny: modules {}", report.modules.join(" "));
    for stage in &report.stages {
        println!(
            "tiny: stage {} {} us at {} us",
            stage.name, stage.took_us, stage.start_us
        );
    }
    for dropped in &report.credentials.dropped {
        println!(
            "tiny: dropped {} from {}: {}",
            dropped.name, dropped.source, dropped.why
        );
    }
    println!(
        "tiny: {} credentials dropped, clock was {:?}",
        report.credentials.drops, report.clock_was
    );
    for warning in &report.warnings {
        println!("tiny: warning {warning}");
    }
    println!(
        "tiny: watchdog {}",
        report.watchdog.as_deref().unwrap_or("none")
    );
}

/// Prints the credentials as systemd would find them.
fn print_credentials() {
    for (kind, variable) in [
        ("plain", "CREDENTIALS_DIRECTORY"),
        ("encrypted", "ENCRYPTED_CREDENTIALS_DIRECTORY"),
    ] {
        let folder = std::env::var(variable).unwrap_or_default();
        let mut files: Vec<_> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        println!("tiny: {kind} credentials {} in {folder}", files.len());
        for file in files {
            let value = fs::read(&file).unwrap_or_default();
            let shown = &value[..value.len().min(40)];
            println!(
                "tiny: {kind} {} has {} bytes: {:?}",
                file.file_name().unwrap_or_default().display(),
                value.len(),
                String::from_utf8_lossy(shown)
            );
        }
    }
}

/// Prints the PCR of the unified kernel image, if the machine has a TPM.
fn print_pcr() {
    if let Ok(value) = fs::read_to_string("/sys/class/tpm/tpm0/pcr-sha256/11") {
        println!("tiny: pcr 11 {}", value.trim().to_ascii_lowercase());
    }
}

/// Tries to write to the root and to its device, which must fail.
fn try_to_write_the_root() {
    match fs::write("/written", "x") {
        Ok(()) => println!("tiny: the root can be written to"),
        Err(e) => println!("tiny: the root refuses writes: {e}"),
    }
    let mapped = fs::read_to_string("/sys/block/dm-0/dm/name").unwrap_or_default();
    println!("tiny: mapping {}", mapped.trim());
    match OpenOptions::new()
        .write(true)
        .open("/dev/dm-0")
        .and_then(|mut device| device.write_all(&[0; 512]))
    {
        Ok(()) => println!("tiny: the mapping can be written to"),
        Err(e) => println!("tiny: the mapping refuses writes: {e}"),
    }
}

/// Counts the boots of this server on its state volume.
fn count_boot() {
    let path = Path::new("/var/tiny/counter");
    if !Path::new("/var").exists() {
        return;
    }
    let count = fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_add(1);
    match replace_file(path, count.to_string().as_bytes()) {
        Ok(()) => println!("tiny: counter {count}"),
        Err(e) => println!("tiny: no counter: {e}"),
    }
}

/// Replaces a file: after a power cut it has the old or the new content.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(parent)?;
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(parent)?.sync_all()
}
