//! Every key that nobody knows, in one go. Serde stops at the first one; a person who renamed three
//! keys wants to hear of all three.

use toml::de::{DeTable, DeValue};

use super::keys::{self, Section};
use super::text::Text;
use crate::error::Error;

/// What may stand at the top, in the order of [`keys::File`].
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

/// One error for each, in the order of the file; none where the text is no TOML.
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
            Some((_, Some(section))) => look(text, section, value.get_ref(), &mut found),
            Some((_, None)) => {}
        }
    }
    found.sort_by_key(|(span, _)| span.start);
    found.into_iter().map(|(_, error)| error).collect()
}

/// A table, or each of a list of tables. What is neither is for serde to complain about.
fn look(
    text: &Text,
    section: &Section,
    value: &DeValue,
    found: &mut Vec<(std::ops::Range<usize>, Error)>,
) {
    if let Some(list) = value.as_array() {
        list.iter()
            .for_each(|value| look(text, section, value.get_ref(), found));
    }
    let names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
    for (key, value) in value.as_table().into_iter().flatten() {
        if !names.contains(&&**key.get_ref()) {
            found.push((
                key.span(),
                text.unknown_key(key.span(), key.get_ref(), &names),
            ));
        }
        if section.title == keys::Source::SECTION.title
            && key.get_ref() == "debian"
            && value.get_ref().is_table()
        {
            look(text, &keys::Debian::SECTION, value.get_ref(), found);
        }
        if section.title == keys::Seal::SECTION.title && key.get_ref() == "allow" {
            look(text, &keys::Allow::SECTION, value.get_ref(), found);
        }
    }
}
