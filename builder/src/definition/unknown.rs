//! Reports every unknown key of a definition at once. Serde stops at the first one.

use toml::de::{DeTable, DeValue};

use super::keys::{self, Section};
use super::text::Text;
use crate::error::Error;

/// Keys that had another name before, with the new name and the values to write.
const RENAMED: &[(&str, &str, &str, &str)] =
    &[("[root]", "layout", "optimize", "\"updates\" or \"size\"")];

/// The tables of a definition, in the order of [`keys::File`].
const TABLES: &[(&str, Option<&Section>)] = &[
    ("image", Some(&keys::Image::SECTION)),
    ("source", Some(&keys::Source::SECTION)),
    ("file", Some(&keys::FileEntry::SECTION)),
    ("root", Some(&keys::Root::SECTION)),
    ("scrub", Some(&keys::Scrub::SECTION)),
    ("volumes", None),
    ("volume", Some(&keys::Volume::SECTION)),
    ("verify", Some(&keys::Verify::SECTION)),
    ("credentials", Some(&keys::Credentials::SECTION)),
    ("failure", Some(&keys::Failure::SECTION)),
    ("seal", Some(&keys::Seal::SECTION)),
    ("on_violation", Some(&keys::OnViolation::SECTION)),
    ("drift", Some(&keys::Drift::SECTION)),
    ("kernel", Some(&keys::Kernel::SECTION)),
    ("boot", Some(&keys::Boot::SECTION)),
    ("sign", Some(&keys::Sign::SECTION)),
    ("disk", Some(&keys::Disk::SECTION)),
    ("limits", Some(&keys::Limits::SECTION)),
];

/// One error for each unknown key, in the order of the file; none if the text is not TOML.
pub fn errors(text: &Text) -> Vec<Error> {
    let Ok(table) = DeTable::parse(text.text) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let names: Vec<&str> = TABLES.iter().map(|table| table.0).collect();
    for (key, value) in table.get_ref() {
        match TABLES.iter().find(|table| table.0 == key.get_ref()) {
            None => found.push((
                key.span(),
                text.unknown_key(key.span(), key.get_ref(), &names),
            )),
            Some((_, Some(section))) => check_keys(text, section, value.get_ref(), &mut found),
            Some((_, None)) => {}
        }
    }
    found.sort_by_key(|(span, _)| span.start);
    found.into_iter().map(|(_, error)| error).collect()
}

/// Checks the keys of a table, or of each table in a list. Serde reports any other value.
fn check_keys(
    text: &Text,
    section: &Section,
    value: &DeValue,
    found: &mut Vec<(std::ops::Range<usize>, Error)>,
) {
    if let Some(list) = value.as_array() {
        list.iter()
            .for_each(|value| check_keys(text, section, value.get_ref(), found));
    }
    let names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
    for (key, value) in value.as_table().into_iter().flatten() {
        if !names.contains(&&**key.get_ref()) {
            let renamed = RENAMED
                .iter()
                .find(|(title, old, ..)| *title == section.title && *old == key.get_ref());
            let error = match renamed {
                Some((_, old, new, values)) => text.error(
                    key.span(),
                    format!("key `{old}` was renamed to `{new}` (write {new} = {values})"),
                ),
                None => text.unknown_key(key.span(), key.get_ref(), &names),
            };
            found.push((key.span(), error));
        }
        if section.title == keys::Source::SECTION.title
            && key.get_ref() == "debian"
            && value.get_ref().is_table()
        {
            check_keys(text, &keys::Debian::SECTION, value.get_ref(), found);
        }
        if section.title == keys::Seal::SECTION.title && key.get_ref() == "allow" {
            check_keys(text, &keys::Allow::SECTION, value.get_ref(), found);
        }
    }
}
