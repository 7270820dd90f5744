//! Storing the contents of files and long links.

use crate::erofs::block_writer::BlockWriter;
use crate::erofs::data::{self, FileSource, FileSources};
use crate::erofs::format::*;
use crate::erofs::fragments::Fragments;
use crate::erofs::inline_spool::InlineSpool;
use crate::erofs::inode_data::InodeData;
use crate::erofs::inodes::{Inodes, Item, path_of};
use crate::erofs::layout;
use crate::erofs::settings::DataSettings;
use crate::erofs::stored::Stored;
use crate::error::Result;
use crate::tree::{Content, Kind, Tree};

/// The stored contents.
pub struct StoredContents {
    /// Data of each inode.
    pub data: Vec<InodeData>,
    /// The packed inode, if there are fragments.
    pub packed: Option<PackedInode>,
    /// The block behind the contents.
    pub end: u32,
}

/// The packed inode, which contains the fragments. It has no name.
pub struct PackedInode {
    pub item: Item,
    pub data: InodeData,
}

/// Stores contents from the next block of `out` on.
pub fn store_contents(
    tree: &Tree,
    inodes: &Inodes,
    fragments: Option<&Fragments>,
    settings: &DataSettings,
    out: &mut BlockWriter<'_>,
    inline_spool: &mut InlineSpool,
) -> Result<StoredContents> {
    let offsets = fragments.map(|fragments| &fragments.offsets[..]);
    let mut data: Vec<InodeData> = inodes
        .items
        .iter()
        .enumerate()
        .map(|(i, item)| match offsets.and_then(|offsets| offsets[i]) {
            Some(offset) => InodeData::Fragment(offset),
            None => initial_data(tree, inodes, item),
        })
        .collect();
    let files: Vec<u32> = (0..)
        .zip(&inodes.items)
        .zip(&data)
        .filter(|((_, item), data)| {
            is_stored(
                &tree.node(item.node).kind,
                data,
                settings.algorithm.is_some(),
            )
        })
        .map(|((i, _), _)| i)
        .collect();
    let start = out.next_block()?;
    let packed_content = fragments
        .map(|fragments| &fragments.content)
        .filter(|content| !content.is_empty());
    let mut packed = packed_content.map(|content| PackedInode {
        item: Item::packed(content.len()),
        data: InodeData::Pending,
    });
    let sources = FileContents {
        tree,
        inodes,
        files: &files,
        packed: packed_content,
    };
    data::store(
        &sources,
        settings,
        start,
        &mut |blocks| out.write(blocks),
        &mut |file, stored| {
            let data = match (files.get(file), &mut packed) {
                (Some(index), _) => &mut data[*index as usize],
                (None, Some(packed)) => &mut packed.data,
                (None, None) => return Ok(()),
            };
            // A short file that compression does not shrink keeps its tail, and has no blocks.
            let keeps_tail = matches!((&*data, &stored), (InodeData::Tail, Stored::Flat { .. }));
            if !keeps_tail {
                *data = InodeData::from_stored(stored, inline_spool)?;
            }
            Ok(())
        },
    )?;
    inline_spool.flush()?;
    Ok(StoredContents {
        data,
        packed,
        end: out.next_block()?,
    })
}

/// An inode's data before contents are stored.
fn initial_data(tree: &Tree, inodes: &Inodes, item: &Item) -> InodeData {
    match &tree.node(item.node).kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            InodeData::Device(encode_dev(*major, *minor).unwrap_or(0))
        }
        _ if item.size == 0 => InodeData::Empty,
        _ if inodes.fits_tail(item) => InodeData::Tail,
        _ => InodeData::Pending,
    }
}

/// Whether an inode's content is stored now: it needs blocks, or may be compressed.
fn is_stored(kind: &Kind, data: &InodeData, compress: bool) -> bool {
    match (kind, data) {
        (Kind::File(_) | Kind::Symlink(_), InodeData::Pending) => true,
        (Kind::File(_), InodeData::Tail) => compress,
        _ => false,
    }
}

/// The files and links to be stored, and behind them the packed inode.
struct FileContents<'a> {
    tree: &'a Tree,
    inodes: &'a Inodes,
    /// Indices of their items.
    files: &'a [u32],
    packed: Option<&'a Content>,
}

impl FileContents<'_> {
    /// The item of a file; `None` for the packed inode.
    fn item(&self, file: usize) -> Option<&Item> {
        Some(&self.inodes.items[*self.files.get(file)? as usize])
    }
}

impl FileSources for FileContents<'_> {
    fn count(&self) -> usize {
        self.files.len() + usize::from(self.packed.is_some())
    }

    fn size(&self, file: usize) -> u64 {
        match self.item(file) {
            Some(item) => item.size,
            None => self.packed.map_or(0, Content::len),
        }
    }

    fn begins_arena(&self, file: usize) -> bool {
        self.item(file)
            .is_some_and(|item| layout::begins_arena(item.key, item.size))
    }

    fn source(&self, file: usize) -> FileSource {
        let Some(item) = self.item(file) else {
            return FileSource {
                content: self.packed.cloned().unwrap_or_default(),
                inline: false,
                header: INODE_EXTENDED,
                compress: true,
                many: true,
            };
        };
        let (content, compress) = match &self.tree.node(item.node).kind {
            Kind::File(content) => (content.clone(), true),
            Kind::Symlink(target) => (Content::from_memory(&target[..]), false),
            _ => (Content::default(), false),
        };
        FileSource {
            content,
            inline: self.inodes.fits_tail(item),
            header: self.inodes.header(item),
            compress,
            many: false,
        }
    }

    fn name(&self, file: usize) -> String {
        match self.item(file) {
            Some(item) => path_of(self.tree, item.node),
            None => "(contents of files)".to_owned(),
        }
    }
}
