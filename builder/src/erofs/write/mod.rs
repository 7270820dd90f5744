//! The writer: contents, then positions, then directories, shared attributes and inodes.
//!
//! Contents come first, because their compressed lengths decide how long each index is. Then every
//! inode gets its position, and the metadata that contains positions is written.

mod contents;
mod metadata;
mod placement;

use zerocopy::IntoBytes;

use self::contents::{StoredContents, store_contents};
use self::metadata::{Metadata, write_data};
use self::placement::{Placement, place, reuse_placement};
use super::algorithm::Algorithm;
use super::block_writer::BlockWriter;
use super::content_spool::ContentSpool;
use super::format::*;
use super::fragments::{self, Fragments};
use super::inline_spool::InlineSpool;
use super::inode_data::InodeData;
use super::inodes::Inodes;
use super::settings::DataSettings;
use super::zstd::window_log;
use super::{BlockSink, ErofsOptions, WrittenErofs};
use crate::error::{Context, Error, Result};
use crate::tree::{Kind, Tree};

/// Most bytes of a volume label.
const LABEL_MAX: usize = 15;

/// Writes the tree as a file system.
pub fn write(
    tree: &Tree,
    options: &ErofsOptions,
    sink: &mut dyn BlockSink,
) -> Result<WrittenErofs> {
    let settings = settings(options)?;
    let label = label(&options.label)?;
    let reference = options.reference.as_deref();
    let inodes = Inodes::collect(tree, reference.map(|reference| reference.time))?;
    let fragments = fragments(tree, &inodes, options)?;
    let mut append = |blocks: &[u8]| sink.append(blocks);
    let mut out = BlockWriter::new(&mut append);

    let mut inline_spool = InlineSpool::new(&options.spool)?;
    // With a reference image, contents wait until all lengths are known.
    let mut content_spool = reference
        .map(|_| ContentSpool::new(&options.spool))
        .transpose()?;
    let mut store = |out: &mut BlockWriter<'_>| {
        let fragments = fragments.as_ref();
        store_contents(tree, &inodes, fragments, &settings, out, &mut inline_spool)
    };
    let mut contents = match &mut content_spool {
        Some(spool) => store(&mut BlockWriter::new(&mut |blocks| spool.append(blocks)))?,
        None => store(&mut out)?,
    };
    let new_placement = place(tree, &inodes, &contents, content_spool.is_some())?;
    let reused = reference.and_then(|reference| {
        reuse_placement(tree, &inodes, &contents.data, reference, &new_placement)
    });
    let placement_reused = reused.is_some();
    let placement = reused.unwrap_or(new_placement);
    let spool = content_spool.as_ref();
    write_data(
        tree,
        &inodes,
        &mut contents.data,
        &placement,
        spool,
        &mut out,
    )?;
    let xattr_blkaddr = out.next_block()?;
    out.write(inodes.xattrs.area())?;
    out.pad_block()?;
    let meta_blkaddr = out.next_block()?;
    Metadata {
        tree,
        inodes: &inodes,
        contents: &contents,
        placement: &placement,
        algorithm: settings.algorithm.map_or(0, Algorithm::code),
        inline_spool: &inline_spool,
        start: meta_blkaddr,
    }
    .write(&mut out)?;
    let blocks = out.next_block()?;

    let superblock = ErofsSuperBlock {
        root_nid: root_nid(&placement)?.into(),
        inos: (placement.inodes.numbers.len() as u64).into(),
        epoch: (inodes.fixed.seconds as u64).into(),
        fixed_nsec: inodes.fixed.nanoseconds.into(),
        blocks: blocks.into(),
        meta_blkaddr: meta_blkaddr.into(),
        xattr_blkaddr: xattr_blkaddr.into(),
        packed_nid: placement.packed_number(&inodes).unwrap_or(0).into(),
        uuid: options.uuid,
        volume_name: label,
        ..Default::default()
    };
    sink.first(&encode_superblock(superblock, &contents, &settings))
        .context(|| "writing its superblock")?;
    Ok(WrittenErofs {
        blocks: u64::from(blocks),
        inodes: inodes.items.len() as u64,
        content: inodes
            .items
            .iter()
            .filter(|item| matches!(tree.node(item.node).kind, Kind::File(_)))
            .map(|item| item.size)
            .sum(),
        placement_reused,
    })
}

fn settings(options: &ErofsOptions) -> Result<DataSettings> {
    let cluster = options.cluster as usize;
    if !cluster.is_power_of_two() || !(BLOCK..=Z_EROFS_PCLUSTER_MAX_SIZE).contains(&cluster) {
        return Err(Error::new(format!(
            "cluster of {cluster} bytes: it must be a power of two from 4096 to 1048576"
        )));
    }
    Ok(DataSettings {
        algorithm: options.compression,
        cluster,
        jobs: options.jobs,
        cache: options.cache.clone(),
    })
}

fn label(text: &str) -> Result<[u8; 16]> {
    let mut label = [0; 16];
    if text.len() > LABEL_MAX || text.contains('\0') {
        return Err(Error::new(format!(
            "volume label {text:?} has more than {LABEL_MAX} bytes, or contains a NUL byte"
        )));
    }
    label[..text.len()].copy_from_slice(text.as_bytes());
    Ok(label)
}

fn fragments(tree: &Tree, inodes: &Inodes, options: &ErofsOptions) -> Result<Option<Fragments>> {
    if !options.fragments {
        return Ok(None);
    }
    if options.compression.is_none() {
        return Err(Error::new(
            "a root optimized for size must be compressed, and compression is \"none\"",
        )
        .hint("choose another [root] compression, or [root] optimize = \"updates\""));
    }
    if options.reference.is_some() {
        return Err(Error::new(
            "a root optimized for size can't reuse the block positions of a reference image",
        )
        .hint("leave out --reference, or [root] optimize"));
    }
    fragments::collect(tree, inodes).map(Some)
}

fn root_nid(placement: &Placement) -> Result<u16> {
    u16::try_from(placement.inodes.numbers[0]).map_err(|_| {
        Error::new("/: the root directory has more extended attributes than EROFS can hold")
    })
}

/// Block 0: adds features and compression algorithms to the superblock.
fn encode_superblock(
    mut superblock: ErofsSuperBlock,
    contents: &StoredContents,
    settings: &DataSettings,
) -> [u8; BLOCK] {
    let data = &contents.data;
    let inline = data
        .iter()
        .any(|d| matches!(d, InodeData::InlineCluster(_)));
    let packed = contents.packed.is_some();
    let used = inline || packed || data.iter().any(InodeData::has_clusters);
    let mut features = 0;
    let mut compr_cfgs = Vec::new();
    if let Some(algorithm) = settings.algorithm.filter(|_| used) {
        features = EROFS_FEATURE_INCOMPAT_LZ4_0PADDING | EROFS_FEATURE_INCOMPAT_COMPR_CFGS;
        superblock.available_compr_algs = (1 << algorithm.code()).into();
        compr_cfgs = configuration(algorithm, settings.cluster);
    }
    if inline {
        features |= EROFS_FEATURE_INCOMPAT_ZTAILPACKING;
    }
    if packed {
        features |= EROFS_FEATURE_INCOMPAT_FRAGMENTS;
    }
    superblock.feature_incompat = features.into();
    superblock.encode(&compr_cfgs)
}

/// The configuration of an algorithm, with its length in front.
fn configuration(algorithm: Algorithm, cluster: usize) -> Vec<u8> {
    match algorithm {
        Algorithm::Lz4 | Algorithm::Lz4hc => ZErofsLz4Cfgs {
            size: (size_of::<ZErofsLz4Cfgs>() as u16 - 2).into(),
            max_distance: u16::MAX.into(),
            max_pclusterblks: ((cluster / BLOCK) as u16).into(),
            ..Default::default()
        }
        .as_bytes()
        .to_vec(),
        Algorithm::Zstd(_) => ZErofsZstdCfgs {
            size: (size_of::<ZErofsZstdCfgs>() as u16 - 2).into(),
            windowlog: (window_log(cluster) - 10) as u8,
            ..Default::default()
        }
        .as_bytes()
        .to_vec(),
    }
}
