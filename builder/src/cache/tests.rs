use super::*;

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("adamant-cache-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn key(number: u64) -> Key {
    Key::new("test", &[number], b"")
}

fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(100 + number as usize)
}

fn keep(folder: &Path, numbers: std::ops::Range<u64>) -> Used {
    let cache = Cache::open(folder).unwrap();
    for number in numbers {
        if cache.get(&key(number)).is_none() {
            cache.put(key(number), &value(number));
        }
    }
    cache.finish()
}

fn all(folder: &Path) -> Vec<PathBuf> {
    pack::paths(&super::folder(folder)).unwrap()
}

#[test]
fn what_was_kept_is_found_and_only_that() {
    let folder = scratch("found");
    assert_eq!(keep(&folder, 0..50), Used { found: 0, made: 50 });
    assert_eq!(
        keep(&folder, 25..75),
        Used {
            found: 25,
            made: 25
        }
    );
    let cache = Cache::open(&folder).unwrap();
    assert!((0..75).all(|number| cache.get(&key(number)) == Some(value(number))));
    assert_eq!(cache.get(&key(75)), None);
    assert_eq!(cache.get(&Key::new("other", &[1], b"")), None);
    assert_eq!(
        (cache.finish(), all(&folder).len()),
        (Used { found: 75, made: 0 }, 2)
    );
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_flipped_byte_anywhere_loses_what_it_is_in_and_never_gives_something_else() {
    let folder = scratch("flipped");
    keep(&folder, 0..5);
    let path = all(&folder).remove(0);
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len())
        .step_by(7)
        .chain(whole.len() - 400..whole.len())
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let cache = Cache::open(&folder).unwrap();
        for number in 0..5 {
            assert!(
                cache
                    .get(&key(number))
                    .is_none_or(|found| found == value(number)),
                "byte {at}"
            );
        }
    }
    for len in (0..whole.len()).step_by(97) {
        fs::write(&path, &whole[..len]).unwrap();
        let cache = Cache::open(&folder).unwrap();
        assert!(
            (0..5).all(|number| cache.get(&key(number)).is_none()) && !path.exists(),
            "{len} bytes"
        );
    }
    assert_eq!(keep(&folder, 0..5), Used { found: 0, made: 5 });
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn packs_that_are_deleted_while_they_are_used_do_no_harm() {
    let folder = scratch("deleted");
    keep(&folder, 0..5);
    let cache = Cache::open(&folder).unwrap();
    fs::remove_dir_all(super::folder(&folder)).unwrap();
    assert_eq!(cache.get(&key(3)), Some(value(3)));
    cache.put(key(9), &value(9));
    assert_eq!(cache.finish(), Used { found: 1, made: 1 });
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn many_small_packs_become_one() {
    let folder = scratch("many");
    for number in 0..2 * PACKS as u64 {
        keep(&folder, number..number + 1);
    }
    assert_eq!(keep(&folder, 0..2 * PACKS as u64).made, 0);
    assert_eq!(all(&folder).len(), 1);
    assert_eq!(keep(&folder, 0..2 * PACKS as u64).made, 0);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let folder = scratch("pruned");
    for number in 0..3 {
        keep(&folder, number * 10..number * 10 + 10);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let before: u64 = all(&folder)
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    // The first is used again.
    keep(&folder, 0..1);
    verbs::prune_results(&super::folder(&folder), before - 1).unwrap();
    let cache = Cache::open(&folder).unwrap();
    let there = |number| cache.get(&key(number)).is_some();
    assert!(there(0) && !there(10) && there(20));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn builds_at_the_same_time_each_find_what_there_is() {
    let folder = scratch("together");
    std::thread::scope(|scope| {
        for start in 0..8 {
            let folder = &folder;
            scope.spawn(move || {
                for round in 0..5 {
                    keep(folder, start..start + 20 + round);
                }
            });
        }
    });
    assert_eq!(keep(&folder, 0..27).made, 0);
    fs::remove_dir_all(folder).unwrap();
}
