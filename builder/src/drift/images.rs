//! Which images the hosts run, and where one image is not the same everywhere.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Host;

/// An image, by its id.
#[derive(Debug, Serialize)]
pub struct Image {
    /// IMAGE_ID.
    pub image_id: String,
    /// What runs of it, most hosts first.
    pub variants: Vec<Variant>,
}

/// All hosts of an image with one root hash.
#[derive(Debug, Serialize)]
pub struct Variant {
    /// IMAGE_VERSION.
    pub image_version: Option<String>,
    /// 64 hexadecimal digits.
    pub root_hash: String,
    /// Their names.
    pub hosts: Vec<String>,
}

/// All images that hosts told of, by id.
pub fn of(hosts: &[Host]) -> Vec<Image> {
    let mut found: BTreeMap<&str, BTreeMap<(&str, Option<&str>), Vec<String>>> = BTreeMap::new();
    for host in hosts {
        let Some(answer) = host.outcome.answer() else { continue };
        if let (Some(id), Some(hash)) = (answer.image_id.as_deref(), answer.root_hash.as_deref()) {
            found.entry(id).or_default().entry((hash, answer.image_version.as_deref())).or_default().push(host.name.clone());
        }
    }
    let image = |(id, variants): (&str, BTreeMap<(&str, Option<&str>), Vec<String>>)| {
        let variant = |((hash, version), hosts): ((&str, Option<&str>), Vec<String>)| Variant {
            image_version: version.map(str::to_owned),
            root_hash: hash.to_owned(),
            hosts,
        };
        let mut variants: Vec<Variant> = variants.into_iter().map(variant).collect();
        variants.sort_by_key(|variant| std::cmp::Reverse(variant.hosts.len()));
        Image { image_id: id.to_owned(), variants }
    };
    found.into_iter().map(image).collect()
}

/// Those of which not all hosts run the same.
pub fn mixed(hosts: &[Host]) -> Vec<Image> {
    of(hosts).into_iter().filter(|image| image.variants.len() > 1).collect()
}
