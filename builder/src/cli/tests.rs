use clap::{CommandFactory, Parser};

use super::{Cli, Verb};
use crate::format::Format;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("adamant").chain(line.split(' ')))
}

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_subcommand_accepts_its_documented_options() {
    for line in [
        "build images/web --format raw,qcow2,vhd --format vmdk,ova,gce,raw.zst,usb",
        "build images/web -o out --check --jobs 3 --agent a --cache c --epoch 2026-11-01 -v",
        "build images/web --no-cache --json -q --force",
        "build images/web --timings t.html",
        "build images/web --reference out@1.0",
        "build images/web --unsigned",
        "build images/web --keys k",
        "verify out --json",
        "verify out --read-data --jobs 2",
        "diff out-1 out-2 --blocks --json",
        "cache info --json",
        "cache prune --size 2G --cache c",
        "cache --cache c clear",
        "inspect disk.raw --certificate a.crt --certificate b.crt --json",
        "boot out --persist --smp 1 --memory 512M --accel tcg --console read-only --timeout 90s --reboots 0 --append -quiet --port 2222:22 --port 8080:80",
        "boot image.toml --console log --credential system.hostname=web1 --agent a",
        "boot out --uefi --tpm",
        "boot out@1.0 --reset --yes",
        "boot out --secure-boot --certificate db.crt",
        "summary images/web --json",
        "keys new k --name me --days 30",
        "sign out --keys k",
        "drift root@a b --hosts - --jobs 8 --timeout 5m --ssh-option User=root --ssh-option IdentityFile=k --sudo --json",
        "completions bash",
    ] {
        let parsed = parse(line);
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

#[test]
fn repeated_formats_are_written_once_and_raw_always() {
    let formats = |list: &str| {
        let Verb::Build(build) = parse(&format!("build d --format {list}")).unwrap().verb else {
            panic!("not a build: {list}")
        };
        let options = build.options();
        (options.disk, options.formats)
    };
    assert_eq!(
        formats("vmdk,raw,qcow2 --format vmdk,usb"),
        (true, vec![Format::Qcow2, Format::Vmdk])
    );
    assert_eq!(formats("uki"), (false, vec![]));
    assert_eq!(formats("uki,raw"), (true, vec![]));
    assert_eq!(formats("usb"), (true, vec![]));
}

#[test]
fn wrong_usage_is_refused() {
    for line in [
        "build",
        "build d --format vdi",
        "build d --format",
        "build d --previous out --reference out",
        "build d -q -v",
        "build d --jobs 0",
        "boot out --smp 0",
        "boot out --memory 2Q",
        "boot out --accel x",
        "boot o --credential x",
        "boot o --ssh-port 2222",
        "boot o --yes",
        "boot o --port 2222",
        "boot o --port 0:22",
        "boot o --port 2222:65536",
        "boot o --port :22",
        "boot o --certificate db.crt",
        "drift",
        "drift a --jobs 0",
        "drift a --timeout 0s",
        "drift a --ssh-option -v",
        "explode",
    ] {
        assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
    }
}
