use super::*;

fn open(folder: &Path) -> Cache {
    Cache::open(folder, b"test").unwrap()
}

fn key(cache: &Cache, number: u64) -> CacheKey {
    cache.key("test", &[number], b"")
}

fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(100 + number as usize)
}

fn statistics(hits: u64, misses: u64) -> CacheStatistics {
    CacheStatistics { hits, misses }
}

fn fill(folder: &Path, numbers: std::ops::Range<u64>) -> CacheStatistics {
    let cache = open(folder);
    for number in numbers {
        if cache.get(&key(&cache, number)).is_none() {
            cache.put(key(&cache, number), &value(number));
        }
    }
    cache.finish()
}

fn packs_in(folder: &Path) -> Vec<PathBuf> {
    pack::paths(&super::folder(folder)).unwrap()
}

#[test]
fn another_version_of_a_library_has_other_keys() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let keys = [&b"1"[..], b"2"].map(|version| key(&Cache::open(folder, version).unwrap(), 1));
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn finds_cached_entries_and_no_others() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    assert_eq!(fill(folder, 0..50), statistics(0, 50));
    assert_eq!(fill(folder, 25..75), statistics(25, 25));
    let cache = open(folder);
    assert!((0..75).all(|number| cache.get(&key(&cache, number)) == Some(value(number))));
    assert_eq!(cache.get(&key(&cache, 75)), None);
    assert_eq!(cache.get(&cache.key("other", &[1], b"")), None);
    assert_eq!(
        (cache.finish(), packs_in(folder).len()),
        (statistics(75, 0), 2)
    );
}

#[test]
fn a_corrupted_pack_never_gives_a_wrong_value() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    fill(folder, 0..5);
    let path = packs_in(folder).remove(0);
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len())
        .step_by(7)
        .chain(whole.len() - 400..whole.len())
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let cache = open(folder);
        for number in 0..5 {
            assert!(
                cache
                    .get(&key(&cache, number))
                    .is_none_or(|found| found == value(number)),
                "byte {at}"
            );
        }
    }
    for len in (0..whole.len()).step_by(97) {
        fs::write(&path, &whole[..len]).unwrap();
        let cache = open(folder);
        assert!(
            (0..5).all(|number| cache.get(&key(&cache, number)).is_none()) && !path.exists(),
            "{len} bytes"
        );
    }
    assert_eq!(fill(folder, 0..5), statistics(0, 5));
}

#[test]
fn packs_may_be_deleted_while_they_are_in_use() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    fill(folder, 0..5);
    let cache = open(folder);
    fs::remove_dir_all(super::folder(folder)).unwrap();
    assert_eq!(cache.get(&key(&cache, 3)), Some(value(3)));
    cache.put(key(&cache, 9), &value(9));
    assert_eq!(cache.finish(), statistics(1, 1));
}

#[test]
fn many_small_packs_are_merged() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    for number in 0..2 * PACKS as u64 {
        fill(folder, number..number + 1);
    }
    assert_eq!(fill(folder, 0..2 * PACKS as u64).misses, 0);
    assert_eq!(packs_in(folder).len(), 1);
    assert_eq!(fill(folder, 0..2 * PACKS as u64).misses, 0);
}

#[test]
fn the_least_recently_used_packs_are_evicted() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    for number in 0..3 {
        fill(folder, number * 10..number * 10 + 10);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let before: u64 = packs_in(folder)
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    // Uses the first pack again.
    fill(folder, 0..1);
    prune::prune_results(&super::folder(folder), before - 1).unwrap();
    let cache = open(folder);
    let there = |number| cache.get(&key(&cache, number)).is_some();
    assert!(there(0) && !there(10) && there(20));
}

#[test]
fn concurrent_builds_share_the_cache() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    std::thread::scope(|scope| {
        for start in 0..8 {
            let folder = &folder;
            scope.spawn(move || {
                for round in 0..5 {
                    fill(folder, start..start + 20 + round);
                }
            });
        }
    });
    assert_eq!(fill(folder, 0..27).misses, 0);
}
