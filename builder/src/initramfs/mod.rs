//! The initramfs: the agent as /init, and the kernel modules that it needs. It is made without
//! tools of the host, so the same tree gives the same bytes on any machine.

mod cpio;
mod depmod;
mod kernel;
pub mod microcode;
mod modules;

use std::io::Write;

use adamant_contract::paths;
use adamant_contract::signature::Rule;

pub use kernel::{Configured, ImageKernel, find_kernel};

use crate::cache::Cache;
use crate::definition::Definition;
use crate::error::{Context, Error, Result};
use crate::tree::Tree;

/// Highest level of zstd outside of its ultra mode. The kernel's decompressor supports windows of
/// up to 128 MiB.
const ZSTD_LEVEL: i32 = 19;

/// An initramfs.
#[derive(Debug)]
pub struct Initramfs {
    /// The archive, compressed in a way that the kernel supports.
    pub bytes: Vec<u8>,
    /// Names of the modules in load order.
    pub modules: Vec<String>,
}

/// Configuration in the initramfs, against which the agent checks how it is started.
#[derive(Debug)]
pub struct EmbeddedConfig {
    /// The certificate (PEM) for the signature of the root hash.
    pub certificate: Option<String>,
    /// Whether the signature is required.
    pub rule: Rule,
    /// The allowed kernel command lines, without `roothash=`.
    pub command_lines: Vec<String>,
}

/// Builds the initramfs for a kernel. `agent` has the bytes of the agent's program.
pub fn build(
    tree: &Tree,
    definition: &Definition,
    kernel: &ImageKernel,
    agent: &[u8],
    embedded: &EmbeddedConfig,
    cache: Option<&Cache>,
) -> Result<Initramfs> {
    let modules = modules::select(tree, kernel, &definition.kernel.modules, cache)?;
    let mut archive = cpio::CpioArchive::default();
    for mount_point in ["/proc", "/sys", "/dev", "/run", paths::SYSROOT] {
        archive.directory(mount_point);
    }
    // The kernel opens the console before it starts init. Without it, the agent's first messages
    // would be lost.
    archive.char_device("/dev/console", 0o600, 5, 1);
    archive.file("/init", 0o755, agent.to_vec());
    let release = format!(
        "ID=adamant\nNAME=\"Adamant initramfs\"\nVERSION_ID={}\n",
        env!("CARGO_PKG_VERSION")
    );
    archive.file(paths::INITRD_RELEASE_PATH, 0o644, release.into_bytes());
    let list: String = modules.iter().map(modules::Module::line).collect();
    archive.file(paths::MODULE_LIST_PATH, 0o644, list.into_bytes());
    archive.file(
        paths::SIGNATURE_RULE_PATH,
        0o644,
        embedded.rule.to_string().into_bytes(),
    );
    archive.file(
        paths::COMMAND_LINES_PATH,
        0o644,
        (embedded.command_lines.join("\n") + "\n").into_bytes(),
    );
    if let Some(certificate) = &embedded.certificate {
        archive.file(
            &format!("{}/{}.crt", paths::CERTIFICATES, definition.id),
            0o644,
            certificate.as_bytes().to_vec(),
        );
    }
    let names = modules.iter().map(|module| module.name.clone()).collect();
    for module in modules {
        archive.file(&module.path, 0o644, module.bytes);
    }
    let bytes =
        compress(&archive.encode(), kernel, cache).context(|| "compressing the initramfs")?;
    Ok(Initramfs {
        bytes,
        modules: names,
    })
}

fn compress(archive: &[u8], kernel: &ImageKernel, cache: Option<&Cache>) -> Result<Vec<u8>> {
    if kernel.configured("RD_ZSTD") == Configured::BuiltIn {
        let key = |cache: &Cache| cache.key("initramfs by zstd", &[ZSTD_LEVEL as u64], archive);
        return Cache::get_or_compute(cache, key, || zstd(archive).context(|| "zstd"));
    }
    if matches!(
        kernel.configured("RD_GZIP"),
        Configured::BuiltIn | Configured::Unknown
    ) {
        let mut encoder = flate2::GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), flate2::Compression::best());
        return encoder
            .write_all(archive)
            .and_then(|()| encoder.finish())
            .context(|| "gzip");
    }
    if kernel.configured("BLK_DEV_INITRD") == Configured::BuiltIn {
        return Ok(archive.to_vec());
    }
    Err(Error::new(format!(
        "kernel {} does not support an initramfs",
        kernel.release
    ))
    .hint("use a kernel with CONFIG_BLK_DEV_INITRD=y"))
}

fn zstd(archive: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(archive.len() as u64))?;
    encoder.write_all(archive)?;
    encoder.finish()
}
