//! `adamant keys` and `adamant sign`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::definition::{Definition, Sign as SignTable};
use crate::error::Result;

/// `adamant keys`
#[derive(Debug, Args)]
pub struct Keys {
    /// What to do
    #[command(subcommand)]
    pub verb: KeysVerb,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeysVerb {
    /// Make a Secure Boot key, a verity key and a PCR key, with certificates, and the lists that
    /// enrol the first one in firmware
    #[command(after_help = "\
Files: secure-boot.key .crt, {PK,KEK,db}.{esl,auth}; verity.key .crt; pcr.key .crt .pub
The keys are RSA with 3072 bits, readable by you alone, and have no passphrase; `openssl pkcs8 -topk8` adds one. Keep them off the build
machine where you can: `adamant build --unsigned` needs the certificates alone.")]
    New {
        /// The folder to make; it must not exist
        dir: PathBuf,
        /// Whose keys they are, for the certificates
        #[arg(long, default_value = "adamant")]
        name: String,
        /// Days until the certificates expire
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
}

/// `adamant sign`
#[derive(Debug, Args)]
#[command(after_help = "\
Signs what `adamant build --unsigned` left: the root hash, boot loader and unified kernel image, the values of PCR 11; and writes the disk, and
its further formats, again. The bytes are those that signing at once would have given.")]
pub struct Sign {
    /// A build's OUT directory, all of whose images are signed, OUT@VERSION, or an artifact
    pub out: PathBuf,
    /// The keys' folder, made by `adamant keys new`
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "definition",
        conflicts_with = "definition"
    )]
    keys: Option<PathBuf>,
    /// Take the keys that this definition names
    #[arg(long, value_name = "DEFINITION")]
    definition: Option<PathBuf>,
}

impl Sign {
    /// Whose keys.
    pub fn table(&self) -> Result<SignTable> {
        match (&self.keys, &self.definition) {
            (Some(keys), _) => Ok(SignTable::from_folder(keys)),
            (None, Some(definition)) => {
                Definition::read(definition).map(|definition| definition.sign)
            }
            (None, None) => Ok(SignTable::default()),
        }
    }
}
