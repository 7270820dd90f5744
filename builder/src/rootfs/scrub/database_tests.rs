//! Databases of Berkeley DB.

use super::package_tests::definition;
use super::*;

/// A database with a hash, as `postalias` writes one: the metadata page and nothing else of
/// interest.
fn database(number: u8) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[12..16].copy_from_slice(&0x0006_1561u32.to_le_bytes());
    page[52..72].fill(number);
    page[100] = 7;
    page
}

#[test]
fn derives_the_number_of_a_database_from_its_path() {
    let image = |number, path: &str| {
        let mut tree = Tree::new();
        tree.insert(
            path.as_bytes(),
            Meta::default(),
            Kind::File(Content::from_memory(database(number))),
        )
        .unwrap();
        let done = scrub(&mut tree, &definition(&[]), None).unwrap();
        let Kind::File(content) = &tree.node(tree.lookup(path.as_bytes()).unwrap()).kind else {
            panic!()
        };
        (content.to_vec(8192).unwrap(), done)
    };
    let (one, done) = image(1, "/etc/aliases.db");
    assert_eq!(
        done,
        [Done {
            rule: DATABASES,
            paths: vec![b"/etc/aliases.db".to_vec()]
        }]
    );
    assert!(one == image(2, "/etc/aliases.db").0 && one != image(1, "/etc/postfix/virtual.db").0);
    assert!(one[..52] == database(1)[..52] && one[72..] == database(1)[72..]);
    assert_eq!(image(1, "/usr/share/a.db").0, database(1));
    // A file that is too short, and one without the magic number.
    for bytes in [vec![0; 71], vec![7; 4096]] {
        let mut tree = Tree::new();
        tree.insert(
            b"/etc/x.db",
            Meta::default(),
            Kind::File(Content::from_memory(bytes)),
        )
        .unwrap();
        assert_eq!(scrub(&mut tree, &definition(&[]), None).unwrap(), []);
    }
}

/// A page of Berkeley DB with these items at its end, the offsets that lead to them, and `free` in
/// the space between.
fn page(kind: u8, items: &[Vec<u8>], free: u8) -> Vec<u8> {
    let mut page = vec![free; 512];
    page[..26].fill(0);
    page[25] = kind;
    page[20..22].copy_from_slice(&u16::try_from(items.len()).unwrap().to_le_bytes());
    let mut start = page.len();
    for (index, item) in items.iter().enumerate() {
        start -= item.len();
        page[start..start + item.len()].copy_from_slice(item);
        page[26 + 2 * index..28 + 2 * index]
            .copy_from_slice(&u16::try_from(start).unwrap().to_le_bytes());
    }
    page[22..24].copy_from_slice(&u16::try_from(start).unwrap().to_le_bytes());
    page
}

#[test]
fn removes_time_and_free_space_of_databases() {
    let hash = |bytes: &[u8]| [&[1], bytes].concat();
    let leaf = |bytes: &[u8]| {
        [
            &u16::try_from(bytes.len()).unwrap().to_le_bytes()[..],
            &[1],
            bytes,
        ]
        .concat()
    };
    let made = |item: &dyn Fn(&[u8]) -> Vec<u8>, time: &str| {
        [
            &b"root"[..],
            b"me",
            b"YP_LAST_MODIFIED",
            time.as_bytes(),
            b"postmaster",
            b"root",
        ]
        .map(item)
    };
    let image = |number: u8, pages: &[Vec<u8>]| {
        let mut bytes = database(number)[..512].to_vec();
        bytes[20..24].copy_from_slice(&512u32.to_le_bytes());
        bytes.extend(pages.concat());
        let mut tree = Tree::new();
        tree.insert(
            b"/etc/aliases.db",
            Meta::default(),
            Kind::File(Content::from_memory(bytes)),
        )
        .unwrap();
        scrub(&mut tree, &definition(&[]), Some(1_700_000_000)).unwrap();
        let Kind::File(content) = &tree.node(tree.lookup(b"/etc/aliases.db").unwrap()).kind else {
            panic!()
        };
        content.to_vec(8192).unwrap()[512..].to_vec()
    };
    for (kind, item) in [
        (2, &hash as &dyn Fn(&[u8]) -> Vec<u8>),
        (13, &hash),
        (5, &leaf),
    ] {
        let with = |number, time: &str| {
            image(
                number,
                &[
                    page(kind, &made(item, time), number),
                    page(kind, &[], number),
                ],
            )
        };
        let expected = [page(kind, &made(item, "1700000000"), 0), page(kind, &[], 0)].concat();
        assert!(
            with(1, "1796082416") == expected && with(2, "1796082417") == expected,
            "type {kind}"
        );
        // An older time is the map's own.
        assert!(
            with(1, "1600000000")
                == [page(kind, &made(item, "1600000000"), 0), page(kind, &[], 0)].concat(),
            "type {kind}"
        );
    }
    // An overflow page has no free space, and a page that contradicts itself stays as it is.
    let mut odd = page(13, &made(&hash, "1796082416"), 3);
    odd[22..24].copy_from_slice(&600u16.to_le_bytes());
    for kept in [page(7, &[], 9), page(0, &[], 9), odd, vec![0xff; 512]] {
        assert!(
            image(1, std::slice::from_ref(&kept)) == kept,
            "{:?}",
            &kept[..26]
        );
    }
}
