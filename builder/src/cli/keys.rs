//! `adamant keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{SUCCESS, parse_number};
use crate::error::Result;
use crate::sign::keys;
use crate::term::output::Output;

/// Arguments of `adamant keys`
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// The action
    #[command(subcommand)]
    verb: KeysVerb,
}

/// Actions on keys.
#[derive(Debug, Subcommand)]
enum KeysVerb {
    /// Create keys and certificates for Secure Boot, verity and PCR values, and the Secure Boot
    /// enrolment lists for firmware
    #[command(after_help = "\
Files: secure-boot.key .crt, {PK,KEK,db}.{esl,auth}; verity.key .crt; pcr.key .crt .pub
The keys are RSA with 3072 bits, readable only by you, and have no passphrase; `openssl pkcs8 -topk8`
adds one. Keep them off the build machine if you can: `adamant build --unsigned` needs only the
certificates.")]
    New {
        /// The directory to create; it must not exist
        dir: PathBuf,
        /// The owner's name in the certificates
        #[arg(long, default_value = "adamant")]
        name: String,
        /// Days until the certificates expire
        #[arg(long, default_value_t = 3650, value_parser = parse_days)]
        days: u32,
    },
}

fn parse_days(text: &str) -> std::result::Result<u32, String> {
    parse_number(text, 1..=36_500)
}

impl KeysArgs {
    /// Runs the action.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        let KeysVerb::New { dir, name, days } = &self.verb;
        let paths = keys::new(dir, name, *days)?;
        let text: String = paths
            .iter()
            .map(|path| format!("{}\n", path.display()))
            .collect();
        output.answer(&text, &paths).map(|()| SUCCESS)
    }
}
