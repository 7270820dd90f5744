//! Chooses the compression of the root: one that the image's own kernel can read.

use crate::definition::{Compression, Optimize, ZSTD_LEVEL};
use crate::erofs::Algorithm;
use crate::error::{Error, Result};
use crate::initramfs::{Configured, ImageKernel};

/// Resolves `auto`, and refuses a compression that the kernel's configuration excludes. Without a
/// kernel or its configuration, `auto` is lz4hc, which every common kernel with EROFS reads.
pub fn choose(wanted: Compression, kernel: Option<&ImageKernel>) -> Result<Compression> {
    let Some(kernel) = kernel else {
        return Ok(if wanted == Compression::Auto {
            Compression::Lz4hc
        } else {
            wanted
        });
    };
    let can_read_any = kernel.configured("EROFS_FS_ZIP") != Configured::No;
    // Linux supports zstd since 6.10 (the kernel's fs/erofs/Kconfig).
    let zstd = kernel.configured("EROFS_FS_ZIP_ZSTD");
    let refuse = |option: &str, instead: &str| {
        Err(Error::new(format!(
            "root.compression: kernel {} can't read this compression ({option} is not set)",
            kernel.release
        ))
        .hint(format!("write compression = {instead:?}")))
    };
    match wanted {
        Compression::Auto if !can_read_any => Ok(Compression::None),
        Compression::Auto if zstd == Configured::BuiltIn && kernel.is_at_least("6.10") => {
            Ok(Compression::Zstd(ZSTD_LEVEL))
        }
        Compression::Auto => Ok(Compression::Lz4hc),
        Compression::None => Ok(Compression::None),
        _ if !can_read_any => refuse("CONFIG_EROFS_FS_ZIP", "none"),
        Compression::Zstd(_) if zstd == Configured::No => {
            refuse("CONFIG_EROFS_FS_ZIP_ZSTD", "lz4hc")
        }
        settled => Ok(settled),
    }
}

/// Refuses `optimize = "size"` if the image's kernel cannot read it with this compression.
pub fn check_optimize(
    optimize: Optimize,
    compression: Compression,
    kernel: Option<&ImageKernel>,
) -> Result<()> {
    let Some(kernel) = kernel.filter(|_| optimize == Optimize::Size) else {
        return Ok(());
    };
    // Linux supports fragments since 6.1, and only compressed (fs/erofs/super.c,
    // z_erofs_fill_inode).
    if compression == Compression::None || !kernel.is_at_least("6.1") {
        let why = if compression == Compression::None {
            "CONFIG_EROFS_FS_ZIP is not set"
        } else {
            "it needs Linux 6.1"
        };
        return Err(Error::new(format!(
            "root.optimize: kernel {} can't read an image optimized for size ({why})",
            kernel.release
        ))
        .hint("write optimize = \"updates\""));
    }
    Ok(())
}

/// The algorithm for the EROFS writer; `None` for no compression. `Auto` is an error.
pub fn algorithm(compression: Compression) -> Result<Option<Algorithm>> {
    match compression {
        Compression::None => Ok(None),
        Compression::Lz4 => Ok(Some(Algorithm::Lz4)),
        Compression::Lz4hc => Ok(Some(Algorithm::Lz4hc)),
        Compression::Zstd(level) => Ok(Some(Algorithm::Zstd(level))),
        Compression::Auto => Err(Error::new(
            "root.compression \"auto\" was not resolved before the root was written; this is a bug in adamant",
        )),
    }
}

/// The name in the definition and the manifest.
pub fn name(compression: Compression) -> String {
    match compression {
        Compression::Auto => "auto".to_owned(),
        Compression::None => "none".to_owned(),
        Compression::Lz4 => "lz4".to_owned(),
        Compression::Lz4hc => "lz4hc".to_owned(),
        Compression::Zstd(level) => format!("zstd:{level}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_chooses_a_compression_that_the_kernel_can_read() {
        let kernel = |release: &str, config: &str| ImageKernel {
            release: release.to_owned(),
            image: vec![],
            config: config.to_owned(),
        };
        let zip = "CONFIG_EROFS_FS=m\nCONFIG_EROFS_FS_ZIP=y\n";
        let zstd = format!("{zip}CONFIG_EROFS_FS_ZIP_ZSTD=y\n");
        let auto = |kernel: &ImageKernel| choose(Compression::Auto, Some(kernel)).unwrap();
        assert_eq!(
            auto(&kernel("6.12.48+deb13-cloud-amd64", &zstd)),
            Compression::Zstd(ZSTD_LEVEL)
        );
        assert_eq!(auto(&kernel("6.9.1", &zstd)), Compression::Lz4hc);
        assert_eq!(
            auto(&kernel("6.1.0-56-cloud-amd64", zip)),
            Compression::Lz4hc
        );
        assert_eq!(auto(&kernel("6.12.0", "")), Compression::Lz4hc);
        assert_eq!(
            auto(&kernel("6.12.0", "CONFIG_EROFS_FS=y\n")),
            Compression::None
        );
        assert_eq!(choose(Compression::Auto, None).unwrap(), Compression::Lz4hc);
        assert!(
            choose(Compression::Zstd(3), Some(&kernel("6.1", zip)))
                .unwrap_err()
                .to_string()
                .contains("lz4hc")
        );
        assert!(
            choose(
                Compression::Lz4,
                Some(&kernel("6.1", "CONFIG_EROFS_FS=y\n"))
            )
            .is_err()
        );
    }
}
