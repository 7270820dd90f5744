//! SBAT: generation numbers of an image's components, by which firmware and shim revoke old ones
//! (<https://github.com/rhboot/shim/blob/main/SBAT.md>).

use super::pe::PeImage;
use crate::error::{Error, Result};

/// The first line, which describes the format.
const HEADER: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md";
/// The line of the unified kernel image itself, as other tools write it.
const UKI: &str =
    "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/";

/// Combines the lines of stub and kernel, and adds those of the image.
pub fn merge(stub: &PeImage, kernel: &PeImage) -> Result<String> {
    let mut text = format!("{HEADER}\n");
    for (name, image) in [("stub", stub), ("kernel", kernel)] {
        let Some(section) = image.section(".sbat") else {
            continue;
        };
        let data = section.data();
        let data = &data[..data.iter().position(|&b| b == 0).unwrap_or(data.len())];
        let lines = std::str::from_utf8(data)
            .ok()
            .filter(|lines| lines.starts_with("sbat,"));
        let lines = lines.ok_or_else(|| {
            Error::new(format!(
                "the {name}'s .sbat section does not start with `sbat,`"
            ))
        })?;
        for line in lines.lines().skip(1).filter(|line| !line.is_empty()) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str(UKI);
    text.push('\n');
    Ok(text)
}
