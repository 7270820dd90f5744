//! Any bytes end in a result: every fuzz target's door, with a bounded number of inputs that are
//! the same in every run.

use std::time::{Duration, Instant};

use adamant_tests::alter::Random;
use adamant_tests::entries::{doors, mutate};
use adamant_tests::tool;

#[test]
fn any_bytes_end_in_a_result_at_every_door() {
    let long = tool::is_long();
    for door in doors() {
        let started = Instant::now();
        let mut random = Random::new(1);
        // Inputs of half a MiB take longer than those of a line: the number follows the size, not
        // the clock, so that it is always the same.
        let size: usize = door.seeds.iter().map(Vec::len).sum();
        let (bytes, most) = if long {
            (100_000_000_000, 2_000_000)
        } else {
            (8_000_000_000, 200_000)
        };
        let count = (bytes / (size + 2000)).min(most);
        for seed in &door.seeds {
            (door.enter)(seed);
            for length in 0..seed.len().min(1100) {
                (door.enter)(&seed[..length]);
            }
        }
        for number in 0..count {
            let bytes = match number % 16 {
                0 => (0..random.below(600))
                    .map(|_| random.next() as u8)
                    .collect(),
                _ => mutate(&door.seeds[number % door.seeds.len()], &mut random),
            };
            let enter = std::panic::AssertUnwindSafe(|| (door.enter)(&bytes));
            if std::panic::catch_unwind(enter).is_err() {
                let kept = std::env::temp_dir().join(format!("adamant-{}-{number}", door.name));
                let _ = std::fs::write(&kept, &bytes);
                panic!(
                    "{}: input {number} ends in a panic; it is in {}",
                    door.name,
                    kept.display()
                );
            }
        }
        println!(
            "{}: {count} inputs in {} ms",
            door.name,
            started.elapsed().as_millis()
        );
        assert!(
            started.elapsed() < Duration::from_secs(600),
            "{} is too slow",
            door.name
        );
    }
}

#[test]
fn what_the_doors_start_from_is_accepted() {
    use adamant_contract::{
        cmdline::CommandLine, credentials::Sorter, gpt, policy::Policy, signature::Embedded,
        uevent::DeviceEvent, verity::Superblock,
    };
    for door in doors() {
        for seed in &door.seeds {
            let accepted = match door.name {
                "command_line" => CommandLine::parse(seed).is_ok(),
                "uevent" => DeviceEvent::parse(seed).is_some(),
                "policy" => Policy::parse(seed).is_ok(),
                "credentials" => {
                    let accept = ["*".to_owned()];
                    let mut sorter = Sorter::new(&accept);
                    sorter.offer_smbios(seed);
                    sorter.offer_command_line(seed);
                    sorter.accepted.len() >= 2
                }
                "signature" => Embedded::parse(seed).is_ok(),
                "verity_superblock" => Superblock::parse(seed).is_ok(),
                "partition_table" => gpt::PartitionTable::parse_primary(
                    &seed[1..],
                    if seed[0] == 1 { 512 } else { 4096 },
                    256,
                )
                .is_ok(),
                "archive" => adamant::source::tar::read_bytes(
                    &seed[1..],
                    adamant::definition::Limits::default(),
                )
                .is_ok(),
                other => panic!("what {other} accepts is not written here"),
            };
            assert!(accepted, "{}: {}", door.name, String::from_utf8_lossy(seed));
        }
    }
}
