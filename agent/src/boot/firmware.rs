//! Finds out how the kernel was started: by firmware with Secure Boot on, and with a unified kernel
//! image that systemd's stub measured. The boot report shows both. Only the measurement of boot
//! phases into the TPM depends on them.
//!
//! EFI variables say the same, but mounting them reads each of them from firmware: seconds on an
//! emulated machine, and on some real ones.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use adamant_contract::report;

use super::Context;
use crate::kernel::tpm;

/// This directory exists if UEFI firmware started the machine.
const EFI: &str = "/sys/firmware/efi";
/// The kernel's `struct boot_params`, where its EFI stub stores the state of Secure Boot
/// (Documentation/arch/x86/zero-page.rst, `secure_boot`; include/linux/efi.h, `enum
/// efi_secureboot_mode`).
const BOOT_PARAMS: &str = "/sys/kernel/boot_params/data";
const AT_SECURE_BOOT: u64 = 0x1ec;
const DISABLED: u8 = 2;
const ENABLED: u8 = 3;
/// The PCR of unified kernel images (UAPI.7, Linux TPM PCR registry). Only the stub and later
/// phases extend it, so it is zero without a stub.
const PCR: u32 = 11;
const PCR_VALUE: &str = "/sys/class/tpm/tpm0/pcr-sha256/11";

/// Detects both, and measures the start of the initramfs into the TPM.
pub fn detect(context: &mut Context) {
    let firmware = &mut context.report.firmware;
    firmware.uefi = Path::new(EFI).exists();
    if !firmware.uefi {
        return;
    }
    firmware.secure_boot = secure_boot(Path::new(BOOT_PARAMS));
    firmware.measured = is_measured(&fs::read_to_string(PCR_VALUE).unwrap_or_default());
    phase(context, "enter-initrd");
}

/// Measures a boot phase into the TPM (systemd-pcrphase.service(8)), so that secrets that are
/// sealed to another phase stay sealed. Does nothing without a measured image, because the PCR then
/// has no base value.
pub fn phase(context: &mut Context, name: &str) {
    let report::FirmwareReport { measured: true, .. } = context.report.firmware else {
        return;
    };
    match tpm::extend(PCR, name) {
        Ok(()) => context.report.firmware.phases.push(name.to_owned()),
        Err(error) => context.warn(format!(
            "The boot phase {name} was not measured into the TPM: {error}."
        )),
    }
}

fn secure_boot(params: &Path) -> Option<bool> {
    let mut mode = [0];
    File::open(params)
        .and_then(|file| file.read_exact_at(&mut mode, AT_SECURE_BOOT))
        .ok()?;
    match mode[0] {
        ENABLED => Some(true),
        DISABLED => Some(false),
        _ => None,
    }
}

/// Whether a PCR, in hexadecimal digits, differs from its value at power-on.
fn is_measured(digits: &str) -> bool {
    digits
        .bytes()
        .any(|digit| digit.is_ascii_hexdigit() && digit != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_an_unknown_state_as_unknown() {
        let path = std::env::temp_dir().join(format!("adamant-boot-params-{}", std::process::id()));
        for (mode, known) in [
            (0, None),
            (1, None),
            (DISABLED, Some(false)),
            (ENABLED, Some(true)),
            (9, None),
        ] {
            let mut params = vec![0xff; 4096];
            params[AT_SECURE_BOOT as usize] = mode;
            fs::write(&path, params).unwrap();
            assert_eq!(secure_boot(&path), known, "{mode}");
        }
        fs::write(&path, [3; 100]).unwrap();
        assert_eq!(secure_boot(&path), None);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn recognizes_a_pcr_of_zeros_as_unmeasured() {
        assert!(!is_measured("") && !is_measured(&"0".repeat(64)) && !is_measured("00\n"));
        assert!(is_measured(&format!("{}A\n", "0".repeat(63))));
    }
}
