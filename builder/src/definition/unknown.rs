//! Reports every unknown key of a definition at once. Serde stops at the first one.

use toml::de::{DeTable, DeValue};

use super::keys::{self, TableReference};
use super::text::Text;
use crate::error::Error;

/// Keys that had another name before, with the new name and the values to write.
const RENAMED: &[(&str, &str, &str, &str)] =
    &[("[root]", "layout", "optimize", "\"updates\" or \"size\"")];

/// The tables of a definition, in the order of [`keys::DefinitionTables`].
const TABLES: &[(&str, Option<&TableReference>)] = &[
    ("image", Some(&keys::ImageTable::SECTION)),
    ("source", Some(&keys::SourceTable::SECTION)),
    ("file", Some(&keys::FileTable::SECTION)),
    ("root", Some(&keys::RootTable::SECTION)),
    ("scrub", Some(&keys::ScrubTable::SECTION)),
    ("volumes", None),
    ("volume", Some(&keys::VolumeTable::SECTION)),
    ("verify", Some(&keys::VerifyTable::SECTION)),
    ("credentials", Some(&keys::CredentialsTable::SECTION)),
    ("failure", Some(&keys::FailureTable::SECTION)),
    ("seal", Some(&keys::SealTable::SECTION)),
    ("on_violation", Some(&keys::OnViolationTable::SECTION)),
    ("drift", Some(&keys::DriftTable::SECTION)),
    ("kernel", Some(&keys::KernelTable::SECTION)),
    ("boot", Some(&keys::BootTable::SECTION)),
    ("sign", Some(&keys::SignTable::SECTION)),
    ("disk", Some(&keys::DiskTable::SECTION)),
    ("limits", Some(&keys::LimitsTable::SECTION)),
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
    section: &TableReference,
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
        if section.title == keys::SourceTable::SECTION.title
            && key.get_ref() == "debian"
            && value.get_ref().is_table()
        {
            check_keys(text, &keys::DebianTable::SECTION, value.get_ref(), found);
        }
        if section.title == keys::SealTable::SECTION.title && key.get_ref() == "allow" {
            check_keys(text, &keys::AllowTable::SECTION, value.get_ref(), found);
        }
    }
}
