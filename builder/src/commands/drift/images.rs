//! The images that the hosts run, and the images of which the hosts run different variants.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Host;

/// An image id and the variants that the hosts run.
#[derive(Debug, Serialize)]
pub struct RunningImage {
    /// IMAGE_ID.
    pub image_id: String,
    /// The variants, the one with the most hosts first.
    pub variants: Vec<ImageVariant>,
}

/// A version and root hash of an image, and the hosts that run it.
#[derive(Debug, Serialize)]
pub struct ImageVariant {
    /// IMAGE_VERSION.
    pub image_version: Option<String>,
    /// 64 hexadecimal digits.
    pub root_hash: String,
    /// Names of the hosts.
    pub hosts: Vec<String>,
}

/// The images that the hosts reported, by id.
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

/// The images of which the hosts run different variants.
pub fn mixed_images(hosts: &[Host]) -> Vec<RunningImage> {
    running_images(hosts)
        .into_iter()
        .filter(|image| image.variants.len() > 1)
        .collect()
}
