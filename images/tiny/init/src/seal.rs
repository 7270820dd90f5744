//! `tiny.seal`: the report on the seal, the kernel's lockdown, and attempts that the seal refuses.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::process::Command;

use adamant_contract::paths::BOOT_REPORT_PATH;
use adamant_contract::report::BootReport;
use adamant_contract::sysctls;
use nix::mount::{MsFlags, mount};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Prints the report, and the results of all attempts.
pub fn try_all() -> io::Result<String> {
    let report: BootReport = fs::read(BOOT_REPORT_PATH)
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other))?;
    println!("tiny: seal reached {}", report.seal.reached);
    let lists = [
        ("enforced", &report.seal.enforced),
        ("missing", &report.seal.missing),
        ("allows", &report.seal.allowances),
    ];
    for (name, list) in lists {
        for one in list {
            println!("tiny: seal {name} {one}");
        }
    }
    println!("tiny: lockdown {}", lockdown());
    let data = report.root.data.clone();
    let tries: [(&str, &dyn Fn() -> io::Result<()>); 4] = [
        ("exec", &exec),
        ("map", &map_executable_memory),
        ("cover", &mount_over_image),
        ("partition", &|| {
            OpenOptions::new()
                .write(true)
                .open(&data)?
                .write_all_at(&[0; 512], 1 << 20)
        }),
    ];
    for (name, attempt) in tries {
        match attempt() {
            Ok(()) => println!("tiny: try {name} worked"),
            Err(error) => println!("tiny: try {name} refused\ntiny: because {name}: {error}"),
        }
    }
    if fs::exists(READER)? {
        scripts()?;
    }
    Ok("done".to_owned())
}

/// A copy of this program in the image, under the name of an interpreter.
pub const READER: &str = "/usr/bin/dash";
/// The argument that makes it open the files that follow.
pub const READ: &str = "read";

/// Lets an interpreter open files of the image and other files.
fn scripts() -> io::Result<()> {
    let read = |name: &str, arguments: &[&str]| -> io::Result<()> {
        let ended = Command::new(READER)
            .arg(READ)
            .args(arguments)
            .stdin(io::pipe()?.0)
            .status()?;
        println!(
            "tiny: try script {name} {}",
            if ended.success() { "worked" } else { "refused" }
        );
        Ok(())
    };
    for path in [
        "/var/script",
        "/run/script",
        "/dev/shm/script",
        "/dev/script",
    ] {
        fs::write(path, "#!")?;
    }
    symlink("/var/script", "/run/link")?;
    read("image", &["/usr/lib/adamant/policy.json"])?;
    read("volume", &["/var/script"])?;
    read("run", &["/run/script"])?;
    read("shm", &["/dev/shm/script"])?;
    read("dev", &["/dev/script"])?;
    read("link", &["/run/link"])?;
    read("image-link", &["/proc/self/exe"])?;
    read(
        "kernel",
        &[
            "/proc/self/status",
            "/sys/kernel/uevent_seqnum",
            "/proc/self/ns/mnt",
        ],
    )?;
    read("pipe", &["/proc/self/fd/0"])?;
    read("new", &["+/var/new"])?;
    read("new-again", &["/var/new"])?;
    // The same file, opened by a program that is not an interpreter.
    println!(
        "tiny: try script other {}",
        if File::open("/var/script").is_ok() {
            "worked"
        } else {
            "refused"
        }
    );
    let memory = memfd_create(c"script", MFdFlags::empty())?;
    read("memory", &[&format!("/proc/1/fd/{}", memory.as_raw_fd())])?;
    Ok(())
}

/// Opens each argument for reading. An argument with a plus sign is a new file, for reading and
/// writing.
pub fn open_all() -> io::Result<()> {
    for path in std::env::args().skip(2) {
        match path.strip_prefix('+') {
            Some(new) => OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(new)?,
            None => File::open(path)?,
        };
    }
    Ok(())
}

/// The lockdown mode; empty where the kernel has none.
fn lockdown() -> String {
    let _ = mount(
        Some("securityfs"),
        sysctls::SECURITY,
        Some("securityfs"),
        MsFlags::empty(),
        None::<&str>,
    );
    sysctls::lockdown(&fs::read_to_string(sysctls::LOCKDOWN).unwrap_or_default()).to_owned()
}

/// Executes a copy of a program of the image on a volume, after an attempt to remount it without
/// `noexec`.
fn exec() -> io::Result<()> {
    let program = "/var/try";
    fs::copy("/proc/self/exe", program)?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))?;
    let _ = mount(
        None::<&str>,
        "/var",
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND,
        None::<&str>,
    );
    Command::new(program).output().map(drop)
}

/// Maps anonymous memory that can be executed.
pub fn map_executable_memory() -> io::Result<()> {
    // SAFETY: a new mapping at an address that the kernel chooses: no memory in use changes.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Mounts a tmpfs over a directory of the image.
pub fn mount_over_image() -> io::Result<()> {
    mount(
        Some("tmpfs"),
        "/mnt",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .map_err(io::Error::from)
}
