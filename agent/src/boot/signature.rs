//! The stage that checks the signature of the root hash before the root hash is used.
//!
//! Promise: only [`check_signature`] makes a [`Checked`], and verity cannot be set up without one.
//! With `require`, the key of a certificate in the initramfs must have signed this root hash. With
//! other rules, the report says that no signature was checked or valid. The stage trusts the
//! initramfs with its certificates and its rule, and nothing on the disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use adamant_contract::gpt;
use adamant_contract::paths::{CERTIFICATES, SIGNATURE_RULE_PATH};
use adamant_contract::report;
use adamant_contract::report::StageName;
use adamant_contract::root_hash::RootHash;
use adamant_contract::signature::{
    self, CERTIFICATE_LIMIT, Certificate, Embedded, Mode, NotARule, PARTITION_LIMIT, Rule,
};

use super::locate::Located;
use super::{Context, Failure};
use crate::kernel::block::Disk;
use crate::kernel::clock;

const STAGE: StageName = StageName::Signature;
/// Most certificates that are read.
const MAX_CERTIFICATES: usize = 32;
/// The label of a slot without an image (UAPI.2, systemd).
const EMPTY_SLOT: &str = "_empty";
const RULE_LIMIT: u64 = 64;

/// A root hash that was signed, or need not be.
pub struct Checked {
    located: Located,
    /// The message that a trusted certificate's key signed, for the kernel to check too.
    message: Option<Vec<u8>>,
}

impl Checked {
    /// The located partitions, and the verified signature.
    pub(super) fn into_parts(self) -> (Located, Option<Vec<u8>>) {
        (self.located, self.message)
    }
}

/// Checks the signature by the rule in the initramfs.
pub fn check_signature(located: Located, context: &mut Context) -> Result<Checked, Failure> {
    let rule = rule()?;
    context.report.built = rule.built;
    correct_clock(rule.built, context);
    let mut report = report::SignatureReport {
        rule: rule.mode,
        ..Default::default()
    };
    let mut message = None;
    if rule.mode != Mode::Off {
        match verify(&located.disk, &located.root_hash, rule.built) {
            Ok((signer, verified)) => {
                message = Some(verified);
                log::info!(
                    "the root hash is signed by {} ({})",
                    signer.subject,
                    signer.fingerprint()
                );
                report.fingerprint = signer.fingerprint();
                report.valid_until = signer.validity.1;
                report.signer = Some(signer.subject);
            }
            Err(failure) if rule.mode == Mode::Require => return Err(failure),
            Err(failure) => context.warn(format!(
                "The root hash's signature was not verified: {}: {}.",
                failure.what, failure.why
            )),
        }
    }
    context.report.signature = report;
    Ok(Checked { located, message })
}

/// Sets a clock that cannot be right to the image's build time, in seconds since 1970. Logs and
/// time stamps need a clock that is roughly right; nothing at boot is decided by it.
fn correct_clock(built: i64, context: &mut Context) {
    match clock::correct(built) {
        Ok(None) => {}
        Ok(Some(earlier)) => {
            log::warn!(
                "the clock was at {earlier} s since 1970, before the image was built or 15 years after it: set to {built}"
            );
            context.report.clock_was = Some(earlier);
        }
        Err(error) => context.warn(format!(
            "The clock is before the image's build time or 15 years after it, and could not be set: {error}."
        )),
    }
}

/// Reads the signature rule of the initramfs.
fn rule() -> Result<Rule, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::new(STAGE, SIGNATURE_RULE_PATH, why, "build the image again")
    };
    let mut text = String::new();
    match File::open(SIGNATURE_RULE_PATH)
        .and_then(|file| file.take(RULE_LIMIT).read_to_string(&mut text))
    {
        Ok(_) => text.parse().map_err(|why: NotARule| wrong(&why)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Rule::default()),
        Err(e) => Err(wrong(&e)),
    }
}

/// Returns the signer, and the signed message.
fn verify(
    disk: &Disk,
    root_hash: &RootHash,
    built: i64,
) -> Result<(Certificate, Vec<u8>), Failure> {
    let trusted = certificates(Path::new(CERTIFICATES))?;
    let mut other = None;
    for (number, content) in partitions(disk)? {
        let refused = |why: String| {
            let remedy = "write the signed image to the disk again, or boot another version; for another signer or an expired certificate, build it again with a valid certificate";
            Failure::new(
                STAGE,
                format!("signature partition {number} of {}", disk.path.display()),
                why,
                remedy,
            )
        };
        let embedded = match content
            .and_then(|bytes| Embedded::parse(&bytes).map_err(|error| error.to_string()))
        {
            Ok(embedded) => embedded,
            Err(why) => {
                other = Some(refused(why));
                continue;
            }
        };
        match signature::check_signature(&embedded, root_hash, &trusted, built) {
            Ok(signer) => return Ok((signer.clone(), embedded.message)),
            Err(why) if embedded.root_hash == *root_hash => {
                return Err(refused(why.to_string()));
            }
            // The signature of another slot. It is only reported if there is no better reason.
            Err(why) => other = other.or_else(|| Some(refused(why.to_string()))),
        }
    }
    Err(other.unwrap_or_else(|| {
        let remedy = "sign the image (adamant sign), or build it with [verify] signature = \"off\"";
        Failure::new(
            STAGE,
            disk.path.display().to_string(),
            "it has no signature partition for this root hash",
            remedy,
        )
    }))
}

/// The certificates in the initramfs, by name.
fn certificates(dir: &Path) -> Result<Vec<Certificate>, Failure> {
    let wrong = |what: &Path, why: &dyn std::fmt::Display| {
        Failure::new(
            STAGE,
            what.display().to_string(),
            why,
            "build the image again, with a certificate that works",
        )
    };
    let entries = fs::read_dir(dir).map_err(|e| wrong(dir, &e))?;
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "crt"))
        .collect();
    paths.sort();
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| {
                file.take(CERTIFICATE_LIMIT as u64 + 1)
                    .read_to_end(&mut bytes)
            })
            .map_err(|e| e.to_string())?;
        Certificate::from_pem(&bytes).map_err(|error| error.to_string())
    };
    paths
        .iter()
        .take(MAX_CERTIFICATES)
        .map(|path| read(path).map_err(|why| wrong(path, &why)))
        .collect()
}

/// The signature partitions on the root's disk that are not empty: number and content.
type SignaturePartition = Result<Vec<u8>, String>;

fn partitions(disk: &Disk) -> Result<Vec<(u32, SignaturePartition)>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::new(
            STAGE,
            disk.path.display().to_string(),
            why,
            "check the disk",
        )
    };
    let file = disk.open(false).map_err(|e| wrong(&e))?;
    let Ok(found) = gpt::disk::read_table(&file, disk.sector, disk.sectors) else {
        return Ok(Vec::new());
    };
    let signatures = (1..)
        .zip(&found.table.partitions)
        .filter_map(|(number, entry)| Some((number, entry.as_ref()?)));
    let signatures = signatures.filter(|(_, entry)| {
        entry.kind == gpt::ROOT_VERITY_SIG_X86_64 && entry.label != EMPTY_SLOT
    });
    let content = |entry: &gpt::Partition| {
        let sector = u64::from(disk.sector);
        let length = usize::try_from(entry.sectors().saturating_mul(sector))
            .ok()
            .filter(|length| *length <= PARTITION_LIMIT);
        let mut bytes =
            vec![0; length.ok_or_else(|| format!("larger than {PARTITION_LIMIT} bytes"))?];
        file.read_exact_at(&mut bytes, entry.first.saturating_mul(sector))
            .map_err(|e| format!("can't be read: {e}"))?;
        Ok(bytes)
    };
    Ok(signatures
        .map(|(number, entry)| (number, content(entry)))
        .collect())
}
