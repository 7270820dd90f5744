//! `tiny.serve`: runs commands from the second serial port with root's rights. Each line is a
//! command. The answer is its output, and a line that begins with `= ` with its result.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

const PORT: &str = "/dev/ttyS1";
/// `_IO(0x12, 93)`: sets the read-only flag of a block device.
const BLKROSET: libc::c_ulong = 0x125d;

/// The argument that makes a child run a command. The guard refuses some requests of PID 1 without
/// an event, because systemd makes them at its start.
pub const CHILD: &str = "do";

/// Runs a command in an ordinary process, and ends.
pub fn child(line: &str) -> ! {
    match run_command(line) {
        Ok((said, _)) => {
            println!("{said}");
            std::process::exit(0)
        }
        Err(error) => {
            println!("{error}");
            std::process::exit(1)
        }
    }
}

/// Serves.
pub fn serve() -> io::Result<String> {
    let mut port = OpenOptions::new().read(true).write(true).open(PORT)?;
    let mut attributes = tcgetattr(&port)?;
    cfmakeraw(&mut attributes);
    tcsetattr(&port, SetArg::TCSANOW, &attributes)?;
    let commands = BufReader::new(port.try_clone()?);
    println!("tiny: serving");
    for line in commands.lines() {
        let line = line?;
        if line == "end" {
            return Ok("ended".to_owned());
        }
        let (said, end) =
            run_command(&line).unwrap_or_else(|error| (String::new(), format!("failed: {error}")));
        let gap = if said.is_empty() || said.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        port.write_all(format!("{said}{gap}= {end}\n").as_bytes())?;
    }
    Ok("the port was closed".to_owned())
}

/// Runs a command; returns its output and its result.
fn run_command(line: &str) -> io::Result<(String, String)> {
    let words: Vec<&str> = line.split(' ').collect();
    let mut said = String::new();
    match words.as_slice() {
        ["run", program, arguments @ ..] => {
            let output = Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .output()?;
            let said = [output.stdout, output.stderr].concat();
            return Ok((
                String::from_utf8_lossy(&said).into_owned(),
                format!("{}", output.status),
            ));
        }
        // Runs in the background, with its output in a file.
        ["start", to, program, arguments @ ..] => {
            let out = File::create(to)?;
            let child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(out.try_clone()?)
                .stderr(out)
                .spawn()?;
            said = child.id().to_string();
        }
        ["read", path] => said = fs::read_to_string(path)?,
        ["write", path, text] => fs::write(path, text)?,
        ["program", path] => {
            fs::copy("/proc/self/exe", path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        ["mount", at] => mount(
            Some("tmpfs"),
            *at,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )?,
        ["umount", at] => umount(*at)?,
        // Opens a file for writing this many times.
        ["open", path, times] => {
            let times: u64 = times.parse().map_err(io::Error::other)?;
            let refused = (0..times)
                .filter(|_| OpenOptions::new().write(true).open(path).is_err())
                .count();
            said = format!("refused {refused} times");
        }
        ["writable", path] => {
            let device = File::open(path)?;
            // SAFETY: the request reads one int, which outlives the call.
            if unsafe { libc::ioctl(device.as_raw_fd(), BLKROSET, &0i32) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        _ => return Err(io::Error::other("no such command")),
    }
    Ok((said, "done".to_owned()))
}
