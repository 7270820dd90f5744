//! `adamant keys new DIR`: creates a Secure Boot key, a verity key and a PCR key, each with its
//! certificate, and the files that enrol the Secure Boot certificate in firmware.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rsa::pkcs8::EncodePrivateKey;
use rsa::rand_core::{CryptoRng, Rng, UnwrapErr};
use x509_cert::der::pem::LineEnding;

use super::certificate::Certificate;
use super::file::PemKey;
use super::{Signer, SigningKey, enrol};
use crate::error::{Context, Error, Result};

/// Bits of a new RSA key. All firmware supports 2048, most supports 3072, which is recommended.
const BITS: usize = 3072;
/// The keys: file name, and the end of the certificate's name.
const KEYS: [(&str, &str); 3] = [
    ("secure-boot", "Secure Boot"),
    ("verity", "verity"),
    ("pcr", "PCR"),
];

/// The kernel's random source, which never fails on a running system.
pub(super) fn random() -> impl CryptoRng {
    UnwrapErr(getrandom::SysRng)
}

/// Creates the keys in a new directory. `name` becomes part of the certificates' subjects.
pub fn new(dir: &Path, name: &str, days: u32) -> Result<Vec<PathBuf>> {
    if name.is_empty()
        || name.len() > 40
        || !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " ._-".contains(c))
    {
        return Err(Error::new(format!("{name:?} is not a valid name for keys"))
            .hint("use up to 40 letters, digits, spaces and . _ -"));
    }
    let failed = |e: std::io::Error| {
        let hint = match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                "name a directory that does not exist: keys are never overwritten"
            }
            std::io::ErrorKind::NotFound => "create its parent directory first",
            _ => "name another directory",
        };
        Error::new(format!("{}: {}", dir.display(), crate::error::reason(&e))).hint(hint)
    };
    fs::DirBuilder::new()
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let mut made = Vec::new();
    let mut put = |file: String, bytes: &[u8], mode: u32| -> Result<()> {
        let path = dir.join(file);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .context(|| path.display().to_string())?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .context(|| path.display().to_string())?;
        made.push(path);
        Ok(())
    };
    for (file, what) in KEYS {
        let mut rng = random();
        let key = rsa::PrivateKey::new(&mut rng, BITS)
            .map_err(|e| Error::new(format!("creating a key: {e}")))?;
        let mut serial = [0; 16];
        rng.fill_bytes(&mut serial);
        let certificate = Certificate::self_signed(&format!("{name} {what}"), &key, serial, days)?;
        let pem = key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|e| Error::new(format!("the key can't be written: {e}")))?;
        put(format!("{file}.key"), pem.as_bytes(), 0o600)?;
        put(format!("{file}.crt"), certificate.pem()?.as_bytes(), 0o644)?;
        match file {
            "secure-boot" => {
                let key: Box<dyn SigningKey> = Box::new(PemKey::Rsa(Box::new(key)));
                let signer = Signer {
                    certificate,
                    key,
                    name: file.to_owned(),
                };
                for (name, bytes) in enrol::files(&signer, SystemTime::now())? {
                    put(name, &bytes, 0o644)?;
                }
            }
            "pcr" => put(
                format!("{file}.pub"),
                certificate.public_key_pem()?.as_bytes(),
                0o644,
            )?,
            _ => {}
        }
    }
    Ok(made)
}
