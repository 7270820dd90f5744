//! A TPM 2.0: only the command that the boot needs (TCG, Trusted Platform Module Library, part 3:
//! TPM2_PCR_Event).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The kernel's resource manager. It exists only for a TPM 2.0.
const DEVICE: &str = "/dev/tpmrm0";
/// Longest wait for an answer. Hardware needs milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest answer of a TPM, bytes (TPM2_MAX_RESPONSE_SIZE).
const ANSWER: usize = 4096;

const TPM_ST_SESSIONS: u16 = 0x8002;
const TPM_CC_PCR_EVENT: u32 = 0x0000_013c;
const TPM_RS_PW: u32 = 0x4000_0009;
/// Tag, size and code.
const HEADER: usize = 10;
/// Handle, two empty sizes and attributes.
const AUTHORIZATION: u32 = 9;

/// Extends a PCR with the digest of an event, in every bank of the TPM.
pub fn extend(pcr: u32, event: &str) -> io::Result<()> {
    let mut device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)?;
    device.write_all(&command(pcr, event))?;
    wait(&device)?;
    let mut answer = [0; ANSWER];
    let length = device.read(&mut answer)?;
    match answer.get(6..HEADER).filter(|_| length >= HEADER) {
        Some([0, 0, 0, 0]) => Ok(()),
        Some(code) => Err(io::Error::other(format!(
            "the TPM answered 0x{}",
            adamant_contract::hex::encode(code)
        ))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn wait(device: &File) -> io::Result<()> {
    let timeout = PollTimeout::try_from(DEADLINE).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(
            &mut [PollFd::new(device.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn command(pcr: u32, event: &str) -> Vec<u8> {
    let event = &event.as_bytes()[..event.len().min(64)];
    let mut parameters = Vec::new();
    parameters.extend(pcr.to_be_bytes());
    parameters.extend(AUTHORIZATION.to_be_bytes());
    parameters.extend(TPM_RS_PW.to_be_bytes());
    // No nonce, no attributes, an empty password.
    parameters.extend([0; 5]);
    parameters.extend((event.len() as u16).to_be_bytes());
    parameters.extend(event);
    let mut bytes = Vec::with_capacity(HEADER + parameters.len());
    bytes.extend(TPM_ST_SESSIONS.to_be_bytes());
    bytes.extend(((HEADER + parameters.len()) as u32).to_be_bytes());
    bytes.extend(TPM_CC_PCR_EVENT.to_be_bytes());
    bytes.extend(parameters);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_contains_its_own_length() {
        let bytes = command(11, "ready");
        assert_eq!(
            bytes[..14],
            [0x80, 2, 0, 0, 0, 34, 0, 0, 1, 0x3c, 0, 0, 0, 11]
        );
        assert_eq!((bytes.len(), &bytes[27..]), (34, &b"\0\x05ready"[..]));
    }
}
