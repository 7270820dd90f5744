//! Private keys in PEM files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use p256::ecdsa::signature::hazmat::PrehashSigner;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey;
use sha2::Sha256;

use super::SigningKey;
use crate::error::{Context, Error, Result};

/// Largest key file, bytes.
const LIMIT: u64 = 64 << 10;
/// Environment variable with the passphrase, for runs without a terminal.
const PASSPHRASE: &str = "ADAMANT_PASSPHRASE";

/// A key in memory, which is wiped on drop.
pub enum PemKey {
    Rsa(Box<rsa::PrivateKey>),
    P256(p256::ecdsa::SigningKey),
}

impl SigningKey for PemKey {
    fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>> {
        match self {
            // Random blinding hides the key from timing attacks. The signature does not depend on
            // it.
            PemKey::Rsa(key) => key
                .sign_with_rng(
                    &mut super::keys::random(),
                    rsa::Pkcs1v15Sign::new::<Sha256>(),
                    digest,
                )
                .map_err(|e| Error::new(format!("signing: {e}"))),
            PemKey::P256(key) => {
                let signature: p256::ecdsa::Signature = key
                    .sign_prehash(digest)
                    .map_err(|e| Error::new(format!("signing: {e}")))?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
        }
    }
}

/// Reads a key file, which other users must not be able to read.
pub fn read_key(path: &Path) -> Result<PemKey> {
    let name = || path.display().to_string();
    let mut file = File::open(path)
        .context(name)
        .map_err(super::with_new_keys)?;
    let meta = file.metadata().context(name)?;
    if meta.mode() & 0o077 != 0 {
        return Err(Error::new(format!(
            "{}: other users can read this key (mode {:04o})",
            path.display(),
            meta.mode() & 0o7777
        ))
        .hint(format!(
            "chmod 600 {}; if other users had access, create a new key",
            path.display()
        )));
    }
    let mut text = String::new();
    file.by_ref()
        .take(LIMIT)
        .read_to_string(&mut text)
        .map_err(|_| {
            super::with_new_keys(Error::new(format!("{}: not a PEM file", path.display())))
        })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<PemKey> {
    let wrong = |e: &dyn std::fmt::Display| {
        let why = if text.trim().is_empty() {
            "the file is empty".to_owned()
        } else {
            e.to_string()
        };
        let what = if text.contains("PRIVATE KEY-----") {
            "a broken private key"
        } else {
            "no private key in PEM"
        };
        super::with_new_keys(Error::new(format!("{}: {what}: {why}", path.display())))
    };
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        let passphrase = passphrase(path)?;
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(format!(
                "{}: the passphrase does not open it: {e}",
                path.display()
            ))
        };
        return match rsa::PrivateKey::from_pkcs8_encrypted_pem(text, &passphrase) {
            Ok(key) => Ok(PemKey::Rsa(Box::new(key))),
            Err(e) => p256::SecretKey::from_pkcs8_encrypted_pem(text, &passphrase)
                .map(|key| PemKey::P256(key.into()))
                .map_err(|_| failed(&e)),
        };
    }
    if text.contains("-----BEGIN RSA PRIVATE KEY-----") {
        return rsa::PrivateKey::from_pkcs1_pem(text)
            .map(|key| PemKey::Rsa(Box::new(key)))
            .map_err(|e| wrong(&e));
    }
    match rsa::PrivateKey::from_pkcs8_pem(text) {
        Ok(key) => Ok(PemKey::Rsa(Box::new(key))),
        Err(e) => p256::SecretKey::from_pkcs8_pem(text)
            .map(|key| PemKey::P256(key.into()))
            .map_err(|_| wrong(&e)),
    }
}

/// Reads the passphrase from the environment or from the terminal.
fn passphrase(path: &Path) -> Result<String> {
    if let Ok(value) = std::env::var(PASSPHRASE) {
        return Ok(value);
    }
    let without = || {
        Error::new(format!(
            "{}: it has a passphrase, and there is no terminal to ask for it",
            path.display()
        ))
        .hint(format!(
            "set the environment variable {PASSPHRASE}, or use command: or pkcs11: for the key"
        ))
    };
    let mut terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|_| without())?;
    read_silently(
        &mut terminal,
        &format!("Passphrase of {}: ", path.display()),
    )
    .context(|| "the terminal")
}

/// Reads a line from the terminal without echo.
fn read_silently(terminal: &mut File, prompt: &str) -> std::io::Result<String> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    use std::io::{BufRead, Write};
    terminal.write_all(prompt.as_bytes())?;
    let before = tcgetattr(&*terminal)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&*terminal, SetArg::TCSAFLUSH, &silent)?;
    let mut line = String::new();
    let read = std::io::BufReader::new(Read::take(&*terminal, LIMIT)).read_line(&mut line);
    tcsetattr(&*terminal, SetArg::TCSANOW, &before)?;
    terminal.write_all(b"\n")?;
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
