//! The second slot of a disk, filled as an update would: another version's root, tree, signature
//! and unified kernel image.

use std::fs;
use std::path::Path;

use crate::esp::Esp;
use crate::image::Image;
use crate::scratch::Scratch;
use crate::{alter, tool};

/// The label of a slot with nothing in it.
const EMPTY: &str = "_empty";

/// Puts an image into the empty slot: content first, then label and PARTUUID by one table write for
/// each partition, then what firmware starts.
pub fn fill(disk: &Path, image: &Image, scratch: &Scratch) {
    let source = image.path("raw");
    let theirs: Vec<(String, String)> = table(&source)
        .into_iter()
        .filter(|(label, _)| label.starts_with(&image.stem))
        .collect();
    for (label, uuid) in theirs {
        let from = alter::partition(&source, &label);
        let to = alter::partitions(disk)
            .into_iter()
            .find(|part| part.name == EMPTY && part.kind == from.kind);
        let to = to.unwrap_or_else(|| panic!("no empty partition for {label}"));
        assert!(
            from.size <= to.size,
            "{label}: {} bytes do not fit into {}",
            from.size,
            to.size
        );
        alter::write(
            disk,
            to.start,
            &alter::read(&source, from.start, from.size as usize),
        );
        let number = to.number.to_string();
        let set = |option: &str, value: &str| {
            tool::run(
                tool::command("sfdisk")
                    .args(["-q", "--no-reread", option])
                    .arg(disk)
                    .args([&number, value]),
            );
        };
        set("--part-label", &label);
        set("--part-uuid", &uuid);
        set("--part-attrs", "GUID:60");
    }
    let unified = fs::read(image.path("efi")).unwrap_or_else(|e| panic!("{e}"));
    Esp::of(disk).write(
        &format!("/EFI/Linux/{}+3-0.efi", image.stem),
        &unified,
        scratch,
    );
}

/// Label and PARTUUID of each partition.
fn table(disk: &Path) -> Vec<(String, String)> {
    let text = tool::run(tool::command("sfdisk").arg("-J").arg(disk));
    let json: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("sfdisk -J: {e}: {text}"));
    let text_of = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    json["partitiontable"]["partitions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|part| (text_of(&part["name"]), text_of(&part["uuid"])))
        .collect()
}
