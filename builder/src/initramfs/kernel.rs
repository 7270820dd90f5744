//! Finds the image's kernel and its configuration.

use crate::error::{Context, Error, Result};
use crate::tree::{Tree, show};
use crate::version;

/// Largest kernel image, bytes. A kernel has about 12 MB.
const IMAGE_LIMIT: u64 = 256 << 20;
/// Largest configuration, bytes. It has about 300 KB.
const CONFIG_LIMIT: u64 = 16 << 20;

/// A kernel in the tree.
#[derive(Debug, Clone)]
pub struct ImageKernel {
    /// `uname -r`, for example `6.12.48+deb13-cloud-amd64`.
    pub release: String,
    /// Path of its image in the tree, for example `/boot/vmlinuz-6.12...`.
    pub image: Vec<u8>,
    /// Its configuration (`/boot/config-RELEASE`); empty if there is none.
    pub config: String,
}

/// Value of an option in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configured {
    /// `=y`.
    BuiltIn,
    /// `=m`.
    Module,
    /// Not set.
    No,
    /// There is no configuration.
    Unknown,
}

impl ImageKernel {
    /// The value of `CONFIG_option`.
    pub fn configured(&self, option: &str) -> Configured {
        if self.config.is_empty() {
            return Configured::Unknown;
        }
        let value = self.config.lines().find_map(|line| {
            line.strip_prefix("CONFIG_")?
                .strip_prefix(option)?
                .strip_prefix('=')
        });
        match value.map(str::trim) {
            Some("y") => Configured::BuiltIn,
            Some("m") => Configured::Module,
            _ => Configured::No,
        }
    }

    /// Whether the kernel has at least this version.
    pub fn is_at_least(&self, wanted: &str) -> bool {
        // Only the number is compared: `6.10-rc1` counts as 6.10.
        let number: &str = self
            .release
            .split(|c: char| c != '.' && !c.is_ascii_digit())
            .next()
            .unwrap_or("");
        version::compare(number, wanted).is_ge()
    }

    /// The kernel image's bytes.
    pub fn read_image(&self, tree: &Tree) -> Result<Vec<u8>> {
        let content = tree
            .file_content(&self.image)
            .ok_or_else(|| Error::new(format!("{}: not a file", show(&self.image))))?;
        content.to_vec(IMAGE_LIMIT).context(|| show(&self.image))
    }
}

/// Finds the newest kernel in the tree (`/boot/vmlinuz-RELEASE` or
/// `/usr/lib/modules/RELEASE/vmlinuz`); `None` if there is no kernel.
pub fn find_kernel(tree: &Tree) -> Result<Option<ImageKernel>> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let mut offer = |release: &[u8], image: Vec<u8>| {
        if let Some(release) = valid_release(release)
            && tree
                .file_content(&image)
                .is_some_and(|content| !content.is_empty())
        {
            found.push((release.to_owned(), image));
        }
    };
    for (name, _) in tree
        .resolve(b"/boot")
        .into_iter()
        .flat_map(|boot| tree.children(boot))
    {
        if let Some(release) = name.strip_prefix(b"vmlinuz-") {
            offer(release, [b"/boot/", name].concat());
        }
    }
    for (release, _) in tree
        .resolve(b"/usr/lib/modules")
        .into_iter()
        .flat_map(|modules| tree.children(modules))
    {
        offer(
            release,
            [b"/usr/lib/modules/", release, b"/vmlinuz"].concat(),
        );
    }
    // If both paths exist for a release, /boot is used.
    let newest = found.into_iter().reduce(|best, other| {
        if version::compare(&other.0, &best.0).is_gt() {
            other
        } else {
            best
        }
    });
    let Some((release, image)) = newest else {
        return Ok(None);
    };
    let config = read_config(tree, &release)?;
    Ok(Some(ImageKernel {
        release,
        image,
        config,
    }))
}

fn read_config(tree: &Tree, release: &str) -> Result<String> {
    for path in [
        format!("/boot/config-{release}"),
        format!("/usr/lib/modules/{release}/config"),
    ] {
        if let Some(content) = tree.file_content(path.as_bytes()) {
            let bytes = content.to_vec(CONFIG_LIMIT).context(|| path)?;
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(String::new())
}

fn valid_release(name: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(name).ok()?;
    let fits = text.starts_with(|c: char| c.is_ascii_digit())
        && text.len() <= 64
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b".+_~-".contains(&c));
    fits.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Kind, Meta};

    #[test]
    fn finds_the_newest_kernel_through_links() {
        let mut tree = Tree::new();
        assert!(find_kernel(&tree).unwrap().is_none());
        let file = |text: &str| Kind::File(Content::from_memory(text.as_bytes()));
        tree.insert(b"/boot/vmlinuz-6.9.1", Meta::default(), file("old"))
            .unwrap();
        tree.insert(
            b"/boot/vmlinuz-6.11-gone",
            Meta::default(),
            Kind::Symlink(b"nowhere"[..].into()),
        )
        .unwrap();
        tree.insert(
            b"/boot/vmlinuz-6.10.2",
            Meta::default(),
            Kind::Symlink(b"../kernels/new"[..].into()),
        )
        .unwrap();
        tree.insert(b"/boot/vmlinuz-../../x", Meta::default(), file("x"))
            .ok();
        tree.insert(b"/kernels/new", Meta::default(), file("new"))
            .unwrap();
        tree.insert(
            b"/usr/lib/modules/6.10.2/config",
            Meta::default(),
            file("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_AB=m\n"),
        )
        .unwrap();
        let kernel = find_kernel(&tree).unwrap().unwrap();
        assert_eq!(
            (kernel.release.as_str(), kernel.read_image(&tree).unwrap()),
            ("6.10.2", b"new".to_vec())
        );
        assert_eq!(
            ["A", "B", "AB"].map(|option| kernel.configured(option)),
            [Configured::BuiltIn, Configured::No, Configured::Module]
        );
        assert!(
            kernel.is_at_least("6.10") && !kernel.is_at_least("6.11") && kernel.is_at_least("6.9")
        );
    }
}
