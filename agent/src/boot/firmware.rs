//! What the firmware and systemd's stub left in EFI variables: whether Secure Boot is on, and whether the unified kernel image was measured.
//! Nothing depends on it but words to people, and whether the TPM is told of the boot's phases.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use adamant_agent::report;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Context, tpm};

/// There is such a folder when UEFI firmware started the machine.
const EFI: &str = "/sys/firmware/efi";
/// A place of our own: the image's init mounts the variables itself, writable.
const VARIABLES: &str = "/efivars";
/// UEFI 2.10, 3.3: one byte, 1 when Secure Boot is enforced.
const SECURE_BOOT: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// systemd-stub(7): the number, in UTF-16, of the PCR that it measured the image into.
const STUB_PCR: &str = "StubPcrKernelImage-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Each variable's file begins with four bytes of attributes.
const ATTRIBUTES: usize = 4;
/// Both are shorter.
const LIMIT: u64 = 64;
/// The PCR of unified kernel images (UAPI.7, Linux TPM PCR registry).
const PCR: u32 = 11;

/// Reads both, and tells the TPM that the initramfs has begun.
pub fn run(context: &mut Context) {
    if !Path::new(EFI).exists() {
        return;
    }
    context.report.firmware.uefi = true;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    let _ = fs::create_dir(VARIABLES);
    if let Err(error) = mount(Some("efivarfs"), VARIABLES, Some("efivarfs"), safe, None::<&str>) {
        return log::info!("EFI variables can't be read: {}", error.desc());
    }
    context.report.firmware.secure_boot = variable(SECURE_BOOT).map(|value| value == [1]);
    context.report.firmware.measured = variable(STUB_PCR).is_some_and(|value| is_number(&value, PCR));
    let _ = umount2(VARIABLES, MntFlags::MNT_DETACH);
    phase(context, "enter-initrd");
}

/// Tells the TPM that the boot has reached this phase (systemd-pcrphase.service(8)), so that what was sealed for another one stays closed.
/// Without a measured image there is nothing that the phases could be added to.
pub fn phase(context: &mut Context, name: &str) {
    let report::Firmware { measured: true, .. } = context.report.firmware else { return };
    match tpm::extend(PCR, name) {
        Ok(()) => context.report.firmware.phases.push(name.to_owned()),
        Err(error) => context.warn(format!("The TPM was not told of the phase {name}: {error}.")),
    }
}

/// A variable's value.
fn variable(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(Path::new(VARIABLES).join(name)).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    bytes.get(ATTRIBUTES..).map(<[u8]>::to_vec)
}

/// Whether the value is this number in UTF-16, with or without a NUL at its end.
fn is_number(value: &[u8], number: u32) -> bool {
    let wanted: Vec<u8> = number.to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
    value == wanted || value.strip_suffix(&[0, 0]).is_some_and(|value| value == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_in_utf_16_is_read_with_and_without_its_nul() {
        for value in [&b"1\x001\0\0\0"[..], b"1\x001\0"] {
            assert!(is_number(value, 11));
        }
        for value in [&b""[..], b"1\0", b"11", b"1\x001\0\0\0\0\0", b"1\x002\0\0\0"] {
            assert!(!is_number(value, 11), "{value:?}");
        }
    }
}
