//! The second serial port of a machine, which the init of images/tiny obeys with `tiny.serve`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;

use crate::tool;

/// What was said to a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What it said.
    pub said: String,
    /// How it ended: `done`, `failed: WHY`, or `exit status: N` of a program.
    pub end: String,
}

/// Our ends of two pipes.
pub struct Talk {
    to: File,
    from: File,
    come: Vec<u8>,
}

impl Talk {
    /// Makes the pipes that QEMU's `-chardev pipe,path=PATH` takes.
    pub fn new(path: &Path) -> Talk {
        let end = |name: &str| {
            let path = path.with_extension(name);
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            // Both ways, so that neither opening nor reading waits for the other side.
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(O_NONBLOCK)
                .open(&path)
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        Talk {
            to: end("in"),
            from: end("out"),
            come: Vec::new(),
        }
    }

    /// Sends a command.
    pub fn send(&mut self, command: &str) {
        self.to
            .write_all(format!("{command}\n").as_bytes())
            .unwrap_or_else(|e| panic!("{command}: {e}"));
    }

    /// The answer, once the whole of it has come.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut some = [0; 4096];
        loop {
            match self.from.read(&mut some) {
                Ok(0) => break,
                Ok(count) => self.come.extend(&some[..count]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("the serial port: {e}"),
            }
        }
        let text = tool::lossy(&self.come);
        let (said, rest) = text
            .strip_prefix("= ")
            .map(|rest| ("", rest))
            .or_else(|| text.split_once("\n= "))?;
        let end = rest.strip_suffix('\n')?;
        let answer = Answer {
            said: said.to_owned(),
            end: end.to_owned(),
        };
        self.come.clear();
        Some(answer)
    }
}
