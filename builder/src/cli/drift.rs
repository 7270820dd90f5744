//! `adamant drift`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::commands::drift::{DriftOptions, DriftVerdict, SshOptions};
use crate::definition::values;

/// `adamant drift`
#[derive(Debug, Args)]
#[command(after_help = "\
Runs `adamant-agent drift --json` on each host, as root, by your own ssh with your own configuration: write a host as ssh takes it. Nothing is asked on
the terminal: keys and host keys must be known before. The table has the worst first: drift, hosts that could not be asked, hosts without drift.

Examples:
  adamant drift root@web1 root@web2
  adamant drift --hosts servers --ssh-option User=root --json
  terraform output -json web | jq -r '.[]' | adamant drift --hosts -

Exit codes: 0 no drift anywhere, 1 drift on some host, 2 wrong usage or no list of hosts, 3 no drift seen, but some host could not be asked")]
pub struct Drift {
    /// Whom to ask: HOST, USER@HOST or ssh://USER@HOST:PORT
    #[arg(value_name = "HOST", required_unless_present = "list")]
    hosts: Vec<String>,
    /// Ask the hosts of this list too, one a line, `#` begins a comment; `-` reads it from stdin
    #[arg(long = "hosts", value_name = "FILE")]
    list: Option<PathBuf>,
    /// How many hosts are asked at the same time
    #[arg(long, value_name = "N", default_value = "32", value_parser = jobs)]
    jobs: NonZeroUsize,
    /// How long each host may take, for example 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = timeout)]
    timeout: Duration,
    /// An option for ssh as in ssh_config(5), for example User=root or IdentityFile=KEY; can be
    /// repeated
    #[arg(long = "ssh-option", value_name = "KEY=VALUE", value_parser = option)]
    options: Vec<String>,
    /// Call the agent by `sudo -n`, for users who are not root
    #[arg(long)]
    sudo: bool,
}

impl Drift {
    /// For the command.
    pub fn options(&self) -> DriftOptions {
        DriftOptions {
            hosts: self.hosts.clone(),
            list: self.list.clone(),
            jobs: self.jobs,
            ssh: SshOptions {
                options: self.options.clone(),
                sudo: self.sudo,
                timeout: self.timeout,
            },
        }
    }
}

/// The exit code that stands for it.
pub fn exit_code(verdict: DriftVerdict) -> u8 {
    match verdict {
        DriftVerdict::NoDrift => 0,
        DriftVerdict::Drift => 1,
        DriftVerdict::NotAsked => 3,
    }
}

/// Each takes two descriptors and a few more for its start, of the 1,024 that a process has.
fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .ok()
        .filter(|jobs: &NonZeroUsize| jobs.get() <= 256)
        .ok_or_else(|| format!("{text:?} is not a number from 1 to 256"))
}

fn timeout(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        0 => Err("a host needs longer than that".to_owned()),
        seconds if seconds > 86_400 => Err("a day is the most".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

fn option(text: &str) -> Result<String, String> {
    match text.split_once(['=', ' ']) {
        Some((key, _)) if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            Ok(text.to_owned())
        }
        _ => Err("write it as KEY=VALUE, for example User=root".to_owned()),
    }
}
