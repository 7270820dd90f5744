//! `adamant drift`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::commands::drift::{DriftOptions, DriftVerdict, SshOptions, report_drift};
use crate::definition::values;
use crate::error::Result;
use crate::term::output::Output;

/// Arguments of `adamant drift`
#[derive(Debug, Args)]
#[command(after_help = "\
Runs `adamant-agent drift --json` as root on each host, through your ssh and its configuration. A
HOST is any host that ssh accepts. ssh runs without a terminal, so keys and host keys must be known.
The table lists hosts with drift first, then hosts that failed, then hosts without drift.

Examples:
  adamant drift root@web1 root@web2
  adamant drift --hosts servers --ssh-option User=root --json
  terraform output -json web | jq -r '.[]' | adamant drift --hosts -

Exit codes: 0 no drift, 1 drift on a host, 2 wrong usage or no readable list of hosts, 3 no drift
found, but a host failed")]
pub struct DriftArgs {
    /// Hosts to query: HOST, USER@HOST or ssh://USER@HOST:PORT
    #[arg(value_name = "HOST", required_unless_present = "list")]
    hosts: Vec<String>,
    /// Also query the hosts in this list, one per line, `#` starts a comment; `-` reads stdin
    #[arg(long = "hosts", value_name = "FILE")]
    list: Option<PathBuf>,
    /// Number of hosts to query in parallel
    #[arg(long, value_name = "N", default_value = "32", value_parser = parse_connections)]
    jobs: NonZeroUsize,
    /// Time limit for each host, for example 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = timeout)]
    timeout: Duration,
    /// Pass an option of ssh_config(5) to ssh, for example User=root or IdentityFile=KEY; can be
    /// repeated
    #[arg(long = "ssh-option", value_name = "KEY=VALUE", value_parser = ssh_option)]
    options: Vec<String>,
    /// Run the agent through `sudo -n`, for users other than root
    #[arg(long)]
    sudo: bool,
}

impl DriftArgs {
    /// Queries the hosts and prints the report.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        let options = DriftOptions {
            hosts: self.hosts.clone(),
            list: self.list.clone(),
            jobs: self.jobs,
            ssh: SshOptions {
                options: self.options.clone(),
                sudo: self.sudo,
                timeout: self.timeout,
            },
        };
        report_drift(&options, output).map(exit_code)
    }
}

fn exit_code(verdict: DriftVerdict) -> u8 {
    match verdict {
        DriftVerdict::NoDrift => 0,
        DriftVerdict::Drift => 1,
        DriftVerdict::NotAsked => 3,
    }
}

/// Each connection needs two file descriptors and a few more at its start; a process has 1,024.
fn parse_connections(text: &str) -> std::result::Result<NonZeroUsize, String> {
    text.parse()
        .ok()
        .filter(|jobs: &NonZeroUsize| jobs.get() <= 256)
        .ok_or_else(|| format!("{text:?} is not a whole number from 1 to 256"))
}

fn timeout(text: &str) -> std::result::Result<Duration, String> {
    match values::duration(text)? {
        0 => Err("the time limit must be longer than 0s".to_owned()),
        seconds if seconds > 86_400 => Err("the time limit must be at most one day".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

fn ssh_option(text: &str) -> std::result::Result<String, String> {
    match text.split_once(['=', ' ']) {
        Some((key, _)) if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            Ok(text.to_owned())
        }
        _ => Err("write it as KEY=VALUE, for example User=root".to_owned()),
    }
}
