//! Which images the hosts run, and where one image is not the same everywhere.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Host;

/// An image, by its id.
#[derive(Debug, Serialize)]
pub struct RunningImage {
    /// IMAGE_ID.
    pub image_id: String,
    /// What runs of it, most hosts first.
    pub variants: Vec<ImageVariant>,
}

/// All hosts of an image with one root hash.
#[derive(Debug, Serialize)]
pub struct ImageVariant {
    /// IMAGE_VERSION.
    pub image_version: Option<String>,
    /// 64 hexadecimal digits.
    pub root_hash: String,
    /// Their names.
    pub hosts: Vec<String>,
}

/// All images that hosts told of, by id.
pub fn running_images(hosts: &[Host]) -> Vec<RunningImage> {
    let mut found: BTreeMap<&str, Vec<ImageVariant>> = BTreeMap::new();
    for host in hosts {
        let Some(answer) = host.outcome.answer() else {
            continue;
        };
        let (Some(id), Some(hash)) = (answer.image_id.as_deref(), &answer.root_hash) else {
            continue;
        };
        let variants = found.entry(id).or_default();
        match variants.iter_mut().find(|variant| {
            variant.root_hash == *hash && variant.image_version == answer.image_version
        }) {
            Some(variant) => variant.hosts.push(host.name.clone()),
            None => variants.push(ImageVariant {
                image_version: answer.image_version.clone(),
                root_hash: hash.clone(),
                hosts: vec![host.name.clone()],
            }),
        }
    }
    let image = |(id, mut variants): (&str, Vec<ImageVariant>)| {
        variants.sort_by(|a, b| {
            b.hosts
                .len()
                .cmp(&a.hosts.len())
                .then_with(|| a.root_hash.cmp(&b.root_hash))
        });
        RunningImage {
            image_id: id.to_owned(),
            variants,
        }
    };
    found.into_iter().map(image).collect()
}

/// Those of which not all hosts run the same.
pub fn mixed_images(hosts: &[Host]) -> Vec<RunningImage> {
    running_images(hosts)
        .into_iter()
        .filter(|image| image.variants.len() > 1)
        .collect()
}
