//! `tiny.serve`: does what is asked for on the second serial port, as somebody with a root shell
//! would. A line is a command; what it says is answered, and then one line that begins with `= `:
//! how it ended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

const PORT: &str = "/dev/ttyS1";
/// `_IO(0x12, 93)`: whether a block device is read-only.
const BLKROSET: libc::c_ulong = 0x125d;

/// The word before a command that a child of ours is to obey: PID 1 is refused some things without
/// a word, because systemd tries them at its start.
pub const CHILD: &str = "do";

/// Obeys a command as an ordinary process, and ends.
pub fn child(line: &str) -> ! {
    match obey(line) {
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
            obey(&line).unwrap_or_else(|error| (String::new(), format!("failed: {error}")));
        let gap = if said.is_empty() || said.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        port.write_all(format!("{said}{gap}= {end}\n").as_bytes())?;
    }
    Ok("nobody asks any more".to_owned())
}

/// What a command says, and how it ended.
fn obey(line: &str) -> io::Result<(String, String)> {
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
        // Goes on by itself; what it says goes to a file.
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
        // Opened for writing so often, each time closed again.
        ["open", path, times] => {
            let times: u64 = times.parse().map_err(io::Error::other)?;
            let refused = (0..times)
                .filter(|_| OpenOptions::new().write(true).open(path).is_err())
                .count();
            said = format!("refused {refused} times");
        }
        ["writable", path] => {
            let device = File::open(path)?;
            // SAFETY: the descriptor is open, and the kernel reads an int that outlives the call.
            if unsafe { libc::ioctl(device.as_raw_fd(), BLKROSET, &0i32) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        _ => return Err(io::Error::other("no such command")),
    }
    Ok((said, "done".to_owned()))
}
