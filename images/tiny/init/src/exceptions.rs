//! `tiny.exceptions`: for each exception of [seal.allow] an attempt that only this exception
//! allows, and one that none allows. A child makes them, because the guard treats PID 1
//! differently.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use adamant_contract::paths::BOOT_REPORT_PATH;
use adamant_contract::report::BootReport;
use nix::mount::{MsFlags, mount};
use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::seal::{READ, READER, map_executable_memory, mount_over_image};

/// The argument that makes a child try everything.
pub const TRY: &str = "try-exceptions";
/// The argument that makes a child wait until its standard input ends.
pub const WAIT: &str = "wait";
/// The partition that the test allows to be written: it has no file system.
const PARTITION: &str = "black-box";

/// Starts the child.
pub fn try_in_child() -> io::Result<String> {
    // Only PID 1 may make units at all.
    print("transient_units", make_unit());
    let ended = Command::new("/proc/self/exe").arg(TRY).status()?;
    Ok(format!("{ended}"))
}

/// Waits for the end of the standard input.
pub fn wait() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

/// An attempt, by the exception that allows it.
type Attempt = (&'static str, fn() -> io::Result<()>);

/// Makes all attempts, and prints whether each worked.
pub fn try_all() {
    const ATTEMPTS: [Attempt; 11] = [
        ("jit", map_executable_memory),
        ("debug", trace),
        ("bpf", create_bpf_map),
        ("containers", change_cgroup),
        ("scripts", read_script),
        ("execute", execute),
        ("mounts", mount_over_image),
        ("disks", write_partition),
        ("ioctls", set_read_ahead),
        ("at_start", write_user_s_crontab),
        ("nothing", write_image),
    ];
    for (name, attempt) in ATTEMPTS {
        print(name, attempt());
    }
}

fn print(name: &str, result: io::Result<()>) {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match result {
        Ok(()) => println!("tiny: try {name} worked"),
        Err(error)
            if error.kind() == PermissionDenied
                || (name == "at_start" && error.kind() == ReadOnlyFilesystem) =>
        {
            println!("tiny: try {name} refused");
        }
        Err(error) => println!("tiny: try {name} failed: {error}"),
    }
}

/// Makes a scope, which no exception concerns, and then a service, as systemd does for
/// `systemd-run`.
fn make_unit() -> io::Result<()> {
    const UNITS: &str = "/run/systemd/transient";
    fs::create_dir_all(UNITS)?;
    let scope = [UNITS, "/session-1.scope"].concat();
    fs::write(&scope, "").map_err(|e| io::Error::other(format!("{scope}: {e}")))?;
    File::create([UNITS, "/run-u1.service"].concat()).map(drop)
}

/// Sets the read-ahead of the image's partition: a request that does no harm, and that the guard
/// does not know.
fn set_read_ahead() -> io::Result<()> {
    const BLKRASET: libc::c_ulong = 0x1262;
    let report: BootReport = serde_json::from_reader(File::open(BOOT_REPORT_PATH)?)?;
    let disk = File::open(report.root.data)?;
    // SAFETY: the request's argument is a number.
    match unsafe { libc::ioctl(disk.as_raw_fd(), BLKRASET, 256 as libc::c_ulong) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Attaches to a child, and opens the memory of a process for writing.
fn trace() -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe")
        .arg(WAIT)
        .stdin(Stdio::piped())
        .spawn()?;
    let attached = i32::try_from(child.id())
        .map_err(io::Error::other)
        .and_then(|pid| Ok(ptrace::attach(Pid::from_raw(pid))?));
    child.kill()?;
    child.wait()?;
    attached?;
    OpenOptions::new()
        .write(true)
        .open("/proc/self/mem")
        .map(drop)
}

/// BPF_MAP_CREATE of an array with one value of 8 bytes.
fn create_bpf_map() -> io::Result<()> {
    const BPF_MAP_CREATE: libc::c_int = 0;
    // map_type (BPF_MAP_TYPE_ARRAY), key_size, value_size, max_entries
    let attributes: [u32; 4] = [2, 4, 8, 1];
    // SAFETY: the kernel reads the attributes, whose length is given and which contain no pointer.
    let map = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_CREATE,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if map < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Moves this process into a cgroup of its own.
fn change_cgroup() -> io::Result<()> {
    const CGROUPS: &str = "/sys/fs/cgroup";
    let group = [CGROUPS, "/try"].concat();
    if !fs::exists([CGROUPS, "/cgroup.procs"].concat())? {
        let mounted = mount(
            Some("cgroup2"),
            CGROUPS,
            Some("cgroup2"),
            MsFlags::empty(),
            None::<&str>,
        );
        mounted.map_err(|e| io::Error::other(format!("{CGROUPS}: {e}")))?;
    }
    fs::create_dir(&group).map_err(|e| io::Error::other(format!("{group}: {e}")))?;
    fs::write(group + "/cgroup.procs", std::process::id().to_string())
}

/// Lets an interpreter read a script in memory: scripts on a volume are also allowed by `execute`.
fn read_script() -> io::Result<()> {
    let script = "/run/script";
    fs::write(script, "#!").map_err(|e| io::Error::other(format!("{script}: {e}")))?;
    let ended = Command::new(READER).args([READ, script]).status()?;
    if ended.success() {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Executes a program on a volume.
fn execute() -> io::Result<()> {
    let program = "/var/program";
    fs::copy("/proc/self/exe", program)
        .and_then(|_| fs::set_permissions(program, fs::Permissions::from_mode(0o755)))
        .map_err(|e| io::Error::other(format!("{program}: {e}")))?;
    Command::new(program)
        .arg(WAIT)
        .stdin(Stdio::null())
        .status()
        .map(drop)
}

/// Leaves commands for cron on the volume.
fn write_user_s_crontab() -> io::Result<()> {
    fs::create_dir_all("/var/spool/cron")?;
    fs::write("/var/spool/cron/root", "* * * * * true\n")
}

/// Opens a partition of the root's disk for writing.
fn write_partition() -> io::Result<()> {
    let label = format!("PARTNAME={PARTITION}");
    for entry in fs::read_dir("/sys/class/block")? {
        let entry = entry?;
        let event = fs::read_to_string(entry.path().join("uevent"))?;
        if event.lines().any(|line| line == label) {
            let node = format!("/dev/{}", entry.file_name().display());
            return OpenOptions::new().write(true).open(node).map(drop);
        }
    }
    Err(io::Error::other(format!("no partition is {PARTITION}")))
}

/// Opens the image's own partition for writing.
fn write_image() -> io::Result<()> {
    let report: BootReport = serde_json::from_reader(File::open(BOOT_REPORT_PATH)?)?;
    OpenOptions::new()
        .write(true)
        .open(report.root.data)
        .map(drop)
}
