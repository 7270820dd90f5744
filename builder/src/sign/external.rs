//! Keys in other programs: on a PKCS#11 token, through OpenSC's pkcs11-tool, or behind a command (a
//! KMS, an offline signer).

use std::process::{Command, Stdio};
use std::time::Duration;

use adamant_contract::hex;

use super::SigningKey;
use super::certificate::KeyAlgorithm;
use crate::error::{Context, Error, Result};
use crate::io::prerequisite;
use crate::io::process;
use crate::percent;

/// Longest wait for a signature. A person may have to touch a token, or a service to retry.
const DEADLINE: Duration = Duration::from_secs(120);
/// Largest signature, bytes. An RSA-4096 signature has 512.
const SIGNATURE_LIMIT: u64 = 4096;
/// Environment variable with the token's PIN.
const PIN: &str = "ADAMANT_PIN";

/// DER of `DigestInfo` with SHA-256 up to the digest (RFC 8017, 9.2, note 1), which the token's
/// plain RSA mechanism signs.
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// A key behind a command of the user.
pub struct CommandKey {
    command: String,
    algorithm: KeyAlgorithm,
}

impl CommandKey {
    /// `command` is a shell command.
    pub fn new(command: &str, algorithm: KeyAlgorithm) -> CommandKey {
        CommandKey {
            command: command.to_owned(),
            algorithm,
        }
    }
}

impl SigningKey for CommandKey {
    fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>> {
        let algorithm = match self.algorithm {
            KeyAlgorithm::Rsa => "rsa-pkcs1v15-sha256",
            KeyAlgorithm::EcdsaP256 => "ecdsa-p256-sha256",
        };
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &self.command])
            .env("ADAMANT_ALGORITHM", algorithm)
            .env("ADAMANT_DIGEST", hex::encode(digest));
        capture_signature(&mut command, digest)
    }
}

/// A key on a token.
pub struct TokenKey {
    arguments: Vec<String>,
    algorithm: KeyAlgorithm,
}

impl TokenKey {
    /// Parses an RFC 7512 URI that names token, key and module. The PIN comes from ADAMANT_PIN.
    pub fn open(uri: &str, algorithm: KeyAlgorithm) -> Result<TokenKey> {
        let body = uri.strip_prefix("pkcs11:").unwrap_or(uri);
        let (path, query) = body.split_once('?').unwrap_or((body, ""));
        let mut arguments = vec!["--sign".to_owned()];
        let mut named = false;
        for attribute in path
            .split(';')
            .chain(query.split('&'))
            .filter(|attribute| !attribute.is_empty())
        {
            let (name, value) = attribute.split_once('=').ok_or_else(|| {
                Error::new(format!(
                    "{attribute:?} is not an attribute of a PKCS#11 URI"
                ))
            })?;
            let bytes = percent::decode(value.as_bytes()).ok_or_else(|| {
                Error::new(format!(
                    "{value:?}: a percent sign must be followed by two hexadecimal digits"
                ))
            })?;
            let text = || {
                String::from_utf8(bytes.clone())
                    .map_err(|_| Error::new(format!("{name}: not UTF-8")))
            };
            match name {
                "token" => arguments.extend(["--token-label".to_owned(), text()?]),
                "object" => arguments.extend(["--label".to_owned(), text()?]),
                "id" => arguments.extend(["--id".to_owned(), hex::encode(&bytes)]),
                "slot-id" => arguments.extend(["--slot".to_owned(), text()?]),
                "module-path" => arguments.extend(["--module".to_owned(), text()?]),
                "pin-value" => {
                    return Err(Error::new(
                        "pin-value: a PIN does not belong in a definition or on a command line",
                    )
                    .hint(format!("put it into the environment variable {PIN}")));
                }
                "type" if value == "private" => {}
                "manufacturer"
                | "model"
                | "serial"
                | "library-manufacturer"
                | "library-description"
                | "library-version" => {}
                _ => {
                    return Err(Error::new(format!(
                        "{name:?}: not a supported attribute of PKCS#11 URIs"
                    ))
                    .hint("supported are token, object, id, slot-id, type and module-path"));
                }
            }
            named |= matches!(name, "object" | "id");
        }
        if !named {
            return Err(Error::new(format!("{uri}: the URI names no key"))
                .hint("add object=LABEL or id=%01 to the URI"));
        }
        if std::env::var_os(PIN).is_some() {
            arguments.extend([
                "--login".to_owned(),
                "--pin".to_owned(),
                format!("env:{PIN}"),
            ]);
        }
        Ok(TokenKey {
            arguments,
            algorithm,
        })
    }
}

impl SigningKey for TokenKey {
    fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>> {
        let mut command = Command::new(prerequisite::find("pkcs11-tool")?);
        command.args(&self.arguments);
        let input = match self.algorithm {
            KeyAlgorithm::Rsa => {
                command.args(["--mechanism", "RSA-PKCS"]);
                [&DIGEST_INFO[..], digest].concat()
            }
            KeyAlgorithm::EcdsaP256 => {
                command.args(["--mechanism", "ECDSA", "--signature-format", "openssl"]);
                digest.to_vec()
            }
        };
        command.args(["--input-file", "/dev/stdin", "--output-file", "/dev/stdout"]);
        capture_signature(&mut command, &input).map_err(|e| {
            e.hint(format!(
                "pkcs11-tool reads the PIN from the environment variable {PIN}"
            ))
        })
    }
}

/// Runs a command with this input for at most [`DEADLINE`], and returns its output.
fn capture_signature(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let captured = process::capture(command, input, SIGNATURE_LIMIT, DEADLINE).context(|| name)?;
    let captured = captured
        .ok_or_else(|| Error::new(format!("no signature after {} s", DEADLINE.as_secs())))?;
    if !captured.status.success() {
        let stderr = String::from_utf8_lossy(&captured.err);
        let last = stderr
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("no error message");
        return Err(Error::new(format!("it failed: {last}")));
    }
    match captured.out.is_empty() {
        true => Err(Error::new("it wrote no signature")),
        false => Ok(captured.out),
    }
}
