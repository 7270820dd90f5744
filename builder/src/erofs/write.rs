//! The writer: contents, then places, then directories, shared attributes and inodes.

use super::became::Data;
use super::compress::{self, Algorithm};
use super::data::{self, Settings, Source, Sources, Stored};
use super::dir::{self, Name};
use super::format::*;
use super::fragments::{self, Fragments};
use super::index::{self, Place};
use super::inodes::{Inodes, Item, path_of};
use super::layout::{self, Area, Part};
use super::out::{Aside, Out, too_large};
use super::previous::{self, Previous, Want};
use super::small::Small;
use super::xattr;
use super::{Options, Sink, Written};
use crate::definition::{Compression, Optimize};
use crate::error::{Context, Error, Result};
use crate::tree::{Content, Kind, Node, Tree};

/// Size of the header of an inode's extended attributes (struct erofs_xattr_ibody_header), bytes.
const XATTR_HEADER: u64 = 12;

/// The inode that fragments are in. It has no name.
struct Packed {
    item: Item,
    data: Data,
}

/// Writes the tree as a file system.
pub fn write(tree: &Tree, options: &Options, sink: &mut dyn Sink) -> Result<Written> {
    let settings = settings(options)?;
    let label = label(&options.label)?;
    let previous = options.previous.as_deref();
    let inodes = Inodes::collect(tree, previous.map(|previous| previous.time))?;
    let mut append = |blocks: &[u8]| sink.append(blocks);
    let mut out = Out::new(&mut append);

    let mut small = Small::new(&options.spool)?;
    let smallest = options.optimize == Optimize::Size;
    if smallest && settings.algorithm.is_none() {
        return Err(Error::new("the smallest layout is a compressed one"));
    }
    if smallest && previous.is_some() {
        return Err(
            Error::new("in the smallest layout nothing stays where it was")
                .hint("leave out --reference, or [root] optimize"),
        );
    }
    let fragments = if smallest {
        Some(fragments::collect(tree, &inodes)?)
    } else {
        None
    };
    let mut store = |out: &mut Out<'_>| {
        let (data, packed) = store_contents(
            tree,
            &inodes,
            fragments.as_ref(),
            &settings,
            out,
            &mut small,
        )?;
        Ok::<_, Error>((data, packed, out.block()?))
    };
    // Where contents are to stay where they were, they wait until the lengths of all of them are
    // known.
    let mut aside = previous.map(|_| Aside::new(&options.spool)).transpose()?;
    let (mut data, packed, end) = match &mut aside {
        Some(aside) => store(&mut Out::new(&mut |blocks| aside.append(blocks)))?,
        None => store(&mut out)?,
    };
    let anew = place(tree, &inodes, &data, packed.as_ref(), aside.is_some(), end)?;
    let stayed = previous.and_then(|previous| stay(tree, &inodes, &data, previous, &anew));
    let stays = stayed.is_some();
    let places = stayed.unwrap_or(anew);
    write_data(tree, &inodes, &mut data, &places, aside.as_ref(), &mut out)?;
    let xattr_blkaddr = out.block()?;
    out.put(inodes.xattrs.area())?;
    out.pad()?;
    let meta_blkaddr = out.block()?;
    let compressed = Compressed {
        algorithm: settings.algorithm.map_or(0, Algorithm::code),
        small,
    };
    write_inodes(
        tree,
        &inodes,
        &data,
        packed.as_ref(),
        &places,
        &compressed,
        meta_blkaddr,
        &mut out,
    )?;

    let blocks = out.block()?;
    let inline = data.iter().any(|d| matches!(d, Data::Inline(_)));
    let used = inline || packed.is_some() || data.iter().any(Data::has_clusters);
    let (mut feature_incompat, available_compr_algs, compr_cfgs) = settings
        .algorithm
        .filter(|_| used)
        .map_or((0, 0, Vec::new()), |a| configuration(a, settings.cluster));
    if inline {
        feature_incompat |= EROFS_FEATURE_INCOMPAT_ZTAILPACKING;
    }
    if packed.is_some() {
        feature_incompat |= EROFS_FEATURE_INCOMPAT_FRAGMENTS;
    }
    let block = SuperBlock {
        feature_incompat,
        root_nid: u16::try_from(places.numbers[0]).map_err(|_| {
            Error::new("the root directory has more extended attributes than EROFS can hold there")
        })?,
        inos: places.numbers.len() as u64,
        epoch: inodes.fixed.seconds as u64,
        fixed_nsec: inodes.fixed.nanoseconds,
        blocks,
        meta_blkaddr,
        xattr_blkaddr,
        packed_nid: places.numbers.get(inodes.items.len()).copied().unwrap_or(0),
        uuid: options.uuid,
        volume_name: label,
        available_compr_algs,
        compr_cfgs,
    };
    sink.first(&block.encode())
        .context(|| "writing its superblock")?;
    let content = inodes
        .items
        .iter()
        .filter(|i| matches!(tree.node(i.node).kind, Kind::File(_)))
        .map(|i| i.size)
        .sum();
    Ok(Written {
        blocks: u64::from(blocks),
        inodes: inodes.items.len() as u64,
        content,
        stays,
    })
}

fn settings(options: &Options) -> Result<Settings> {
    let cluster = options.cluster as usize;
    if !cluster.is_power_of_two() || !(BLOCK..=Z_EROFS_PCLUSTER_MAX_SIZE).contains(&cluster) {
        return Err(Error::new(format!(
            "cluster of {cluster} bytes: not a power of two from 4096 to 1048576"
        )));
    }
    let algorithm = match options.compression {
        Compression::None => None,
        Compression::Lz4 => Some(Algorithm::Lz4),
        Compression::Lz4hc => Some(Algorithm::Lz4hc),
        Compression::Zstd(level) => Some(Algorithm::Zstd(level)),
        Compression::Auto => {
            return Err(Error::new(
                "compression \"auto\" was not decided before writing the root file system",
            ));
        }
    };
    Ok(Settings {
        algorithm,
        cluster,
        jobs: options.jobs,
        cache: options.cache.clone(),
    })
}

fn label(text: &str) -> Result<[u8; 16]> {
    let mut label = [0; 16];
    if text.len() > 15 || text.contains('\0') {
        return Err(Error::new(format!(
            "label {text:?} is longer than 15 bytes"
        )));
    }
    label[..text.len()].copy_from_slice(text.as_bytes());
    Ok(label)
}

/// Features, algorithms and their configurations for the super block.
fn configuration(algorithm: Algorithm, cluster: usize) -> (u32, u16, Vec<u8>) {
    let features = EROFS_FEATURE_INCOMPAT_LZ4_0PADDING | EROFS_FEATURE_INCOMPAT_COMPR_CFGS;
    let mut cfgs = Vec::new();
    match algorithm {
        Algorithm::Lz4 | Algorithm::Lz4hc => {
            // z_erofs_lz4_cfgs: distance, blocks of the largest cluster.
            cfgs.extend_from_slice(&14u16.to_le_bytes());
            cfgs.extend_from_slice(&u16::MAX.to_le_bytes());
            cfgs.extend_from_slice(&((cluster / BLOCK) as u16).to_le_bytes());
            cfgs.resize(2 + 14, 0);
        }
        Algorithm::Zstd(_) => {
            // z_erofs_zstd_cfgs: format, window.
            cfgs.extend_from_slice(&6u16.to_le_bytes());
            cfgs.extend_from_slice(&[0, (compress::window_log(cluster) - 10) as u8]);
            cfgs.resize(2 + 6, 0);
        }
    }
    (features, 1 << algorithm.code(), cfgs)
}

/// Stores what files and long links hold; gives what became of each inode's data.
fn store_contents(
    tree: &Tree,
    inodes: &Inodes,
    fragments: Option<&Fragments>,
    settings: &Settings,
    out: &mut Out<'_>,
    small: &mut Small,
) -> Result<(Vec<Data>, Option<Packed>)> {
    let mut data: Vec<Data> = inodes
        .items
        .iter()
        .map(|item| first_guess(tree.node(item.node)))
        .collect();
    for (data, place) in data
        .iter_mut()
        .zip(fragments.iter().flat_map(|fragments| &fragments.places))
    {
        if let Some(at) = place {
            *data = Data::Fragment(*at);
        }
    }
    let wanted = |i: &usize| {
        !matches!(data[*i], Data::Fragment(_))
            && wants_storing(tree, inodes, &inodes.items[*i], settings)
    };
    let files: Vec<u32> = (0..inodes.items.len())
        .filter(wanted)
        .map(|i| i as u32)
        .collect();
    let start = out.block()?;
    let content = fragments
        .map(|fragments| &fragments.content)
        .filter(|content| !content.is_empty());
    let mut packed = content.map(|content| Packed {
        item: Item::packed(content.len()),
        data: Data::Number(0),
    });
    let sources = Contents {
        tree,
        inodes,
        files: &files,
        packed: content,
    };
    data::store(
        &sources,
        settings,
        start,
        &mut |blocks| out.put(blocks),
        &mut |file, stored| {
            let Some(index) = files.get(file).map(|index| *index as usize) else {
                if let Some(packed) = &mut packed {
                    packed.data = Data::of(stored, small)?;
                }
                return Ok(());
            };
            // What is short and not compressed is kept with its inode, and needs no block.
            if !matches!(stored, Stored::Flat { .. }) || has_blocks(inodes, &inodes.items[index]) {
                data[index] = Data::of(stored, small)?;
            }
            Ok(())
        },
    )?;
    small.flush()?;
    Ok((data, packed))
}

/// What has contents to be stored: files, and behind them what is packed of the others.
struct Contents<'a> {
    tree: &'a Tree,
    inodes: &'a Inodes,
    files: &'a [u32],
    packed: Option<&'a Content>,
}

impl Contents<'_> {
    fn item(&self, file: usize) -> &Item {
        &self.inodes.items[self.files[file] as usize]
    }
}

impl Sources for Contents<'_> {
    fn count(&self) -> usize {
        self.files.len() + usize::from(self.packed.is_some())
    }

    fn size(&self, file: usize) -> u64 {
        self.packed
            .filter(|_| file == self.files.len())
            .map_or_else(|| self.item(file).size, Content::len)
    }

    fn begins(&self, file: usize) -> bool {
        file < self.files.len() && layout::begins_arena(self.item(file).key, self.item(file).size)
    }

    fn source(&self, file: usize) -> Source {
        if let Some(content) = self.packed.filter(|_| file == self.files.len()) {
            return Source {
                content: content.clone(),
                inline: false,
                header: INODE_EXTENDED,
                compress: true,
                many: true,
            };
        }
        let item = self.item(file);
        let (content, compress) = match &self.tree.node(item.node).kind {
            Kind::File(content) => (content.clone(), true),
            Kind::Symlink(target) => (Content::from_memory(&target[..]), false),
            _ => (Content::default(), false),
        };
        Source {
            content,
            inline: self.inodes.inline(item),
            header: self.inodes.header(item),
            compress,
            many: false,
        }
    }

    fn name(&self, file: usize) -> String {
        if file < self.files.len() {
            path_of(self.tree, self.item(file).node)
        } else {
            "(contents of files)".to_owned()
        }
    }
}

fn first_guess(node: &Node) -> Data {
    match &node.kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            Data::Number(encode_dev(*major, *minor).unwrap_or(0))
        }
        _ => Data::Number(0),
    }
}

/// Whether a file or link has more than a tail that is kept with its inode, or may be compressed.
fn wants_storing(tree: &Tree, inodes: &Inodes, item: &Item, settings: &Settings) -> bool {
    match tree.node(item.node).kind {
        Kind::File(_) => has_blocks(inodes, item) || item.size > 0 && settings.algorithm.is_some(),
        Kind::Symlink(_) => has_blocks(inodes, item),
        _ => false,
    }
}

/// Whether what is stored flat is not kept with its inode.
fn has_blocks(inodes: &Inodes, item: &Item) -> bool {
    item.size > 0 && !inodes.inline(item)
}

/// What compressed inodes are written with.
struct Compressed {
    /// As the index has it.
    algorithm: u8,
    small: Small,
}

/// Where everything goes.
struct Places {
    /// Slots of inodes.
    numbers: Vec<u64>,
    /// Blocks that inodes take.
    blocks: u64,
    /// What is still to be given out before inodes are, by the index of its inode, and its first
    /// block; in this order.
    starts: Vec<(u32, u32)>,
    /// The block behind all data.
    end: u64,
}

impl Places {
    /// Blocks in all, but for shared attributes.
    fn total(&self) -> u64 {
        self.end + self.blocks
    }
}

/// Gives every inode its place, and every directory the blocks that it needs behind those of
/// contents, which end at `end`. Contents that `wait` are to be given out, too.
fn place(
    tree: &Tree,
    inodes: &Inodes,
    data: &[Data],
    packed: Option<&Packed>,
    wait: bool,
    end: u32,
) -> Result<Places> {
    let count = inodes.items.len() + usize::from(packed.is_some());
    let part = |i: usize| match packed.filter(|_| i == inodes.items.len()) {
        Some(Packed { item, data }) => Part {
            bytes: bytes_in_metadata(inodes, item, data),
            key: item.key,
            area: Area::Addresses,
        },
        None => part(tree, inodes, i, &data[i]),
    };
    let (numbers, blocks) = layout::place(count, &part)
        .ok_or_else(|| Error::new("the metadata would be larger than 16 TiB"))?;
    let waiting = (0..)
        .zip(data)
        .filter(|_| wait)
        .filter_map(|(i, data)| Some((i, data.start()?)));
    let mut starts: Vec<(u32, u32)> = waiting.collect();
    let mut block = u64::from(end);
    for (i, (item, data)) in (0..).zip(inodes.items.iter().zip(data)) {
        let blocks = blocks_of(inodes, item, data);
        if data.start().is_none() && blocks > 0 {
            starts.push((i, u32::try_from(block).map_err(|_| too_large())?));
            block += blocks;
        }
    }
    Ok(Places {
        numbers,
        blocks,
        starts,
        end: block,
    })
}

/// Places that are those of the image before where they can be; `None` when the image would become
/// too large by it.
fn stay(
    tree: &Tree,
    inodes: &Inodes,
    data: &[Data],
    previous: &Previous,
    anew: &Places,
) -> Option<Places> {
    let blocks_at = |i: u32| blocks_of(inodes, &inodes.items[i as usize], &data[i as usize]);
    let wants = |(i, _): &(u32, u32)| {
        Some(Want {
            key: inodes.items[*i as usize].key,
            blocks: u32::try_from(blocks_at(*i)).ok()?,
        })
    };
    let wants: Vec<Want> = anew.starts.iter().map(wants).collect::<Option<_>>()?;
    let mut starts: Vec<(u32, u32)> = anew
        .starts
        .iter()
        .map(|(i, _)| *i)
        .zip(previous.data(&wants)?)
        .collect();
    drop(wants);
    starts.sort_unstable_by_key(|(_, start)| *start);
    let (numbers, blocks) =
        previous.inodes(inodes.items.len(), &|i| part(tree, inodes, i, &data[i]))?;
    let end = starts
        .last()
        .map_or(1, |(i, start)| u64::from(*start) + blocks_at(*i));
    Some(Places {
        numbers,
        blocks,
        starts,
        end,
    })
    .filter(|places| places.total() <= anew.total() + anew.total() / previous::MOST)
}

/// Gives out what has blocks and is not yet there.
fn write_data(
    tree: &Tree,
    inodes: &Inodes,
    data: &mut [Data],
    places: &Places,
    aside: Option<&Aside>,
    out: &mut Out<'_>,
) -> Result<()> {
    for &(i, start) in &places.starts {
        let i = i as usize;
        let item = &inodes.items[i];
        let blocks = blocks_of(inodes, item, &data[i]);
        out.pad_to(u64::from(start) * BLOCK as u64)?;
        match aside.zip(data[i].start()) {
            Some((aside, from)) => {
                aside.copy(from, blocks as u32, out)?;
                data[i].move_to(start);
            }
            None => {
                data[i] = Data::Flat(start);
                out.put(&directory(tree, inodes, item, &places.numbers))?;
                out.pad()?;
            }
        }
    }
    Ok(())
}

fn part(tree: &Tree, inodes: &Inodes, index: usize, data: &Data) -> Part {
    let item = &inodes.items[index];
    let directory = matches!(tree.node(item.node).kind, Kind::Directory(_));
    let area = match data {
        _ if index == 0 => Area::Names,
        Data::Flat(_) | Data::Cluster { .. } | Data::Clusters(_) => Area::Addresses,
        Data::Number(_) if directory && has_blocks(inodes, item) => Area::Addresses,
        Data::Number(_) if directory => Area::Names,
        Data::Number(_) | Data::Inline(_) | Data::Fragment(_) => Area::Rest,
    };
    Part {
        bytes: bytes_in_metadata(inodes, item, data),
        key: item.key,
        area,
    }
}

/// Inode, extended attributes, and tail or index.
fn bytes_in_metadata(inodes: &Inodes, item: &Item, data: &Data) -> u64 {
    let header = inodes.header(item);
    let behind = match data {
        Data::Cluster { .. } | Data::Clusters(_) => index::len(item.size, header),
        Data::Inline(kept) => index::len(item.size, header) + u64::from(kept.len()),
        Data::Fragment(_) => index::fragment_len(header),
        _ if inodes.inline(item) => item.size,
        _ => 0,
    };
    header as u64 + behind
}

/// Blocks of data.
fn blocks_of(inodes: &Inodes, item: &Item, data: &Data) -> u64 {
    match data {
        Data::Cluster { .. } | Data::Clusters(_) => u64::from(data.blocks()),
        // What is a number still is a directory's, if it has blocks at all.
        Data::Flat(_) | Data::Number(_) if has_blocks(inodes, item) => {
            item.size.div_ceil(BLOCK as u64)
        }
        Data::Flat(_) | Data::Number(_) | Data::Inline(_) | Data::Fragment(_) => 0,
    }
}

/// A directory's bytes.
fn directory(tree: &Tree, inodes: &Inodes, item: &Item, nids: &[u64]) -> Vec<u8> {
    let names = dir::with_dots(
        tree.children(item.node),
        item.node,
        inodes.items[item.parent as usize].node,
    );
    dir::encode(names.map(|(name, node)| Name {
        name,
        nid: nids[inodes.index(node)],
        file_type: file_type(&tree.node(node).kind),
    }))
}

#[expect(
    clippy::too_many_arguments,
    reason = "all that was found out before, and where it goes"
)]
fn write_inodes(
    tree: &Tree,
    inodes: &Inodes,
    data: &[Data],
    packed: Option<&Packed>,
    places: &Places,
    compressed: &Compressed,
    meta_blkaddr: u32,
    out: &mut Out<'_>,
) -> Result<()> {
    let mut order: Vec<u32> = (0..places.numbers.len() as u32).collect();
    order.sort_unstable_by_key(|&i| places.numbers[i as usize]);
    let start = u64::from(meta_blkaddr) * BLOCK as u64;
    for i in order {
        let i = i as usize;
        out.pad_to(start + places.numbers[i] * SLOT as u64)?;
        match packed.filter(|_| i == data.len()) {
            Some(packed) => write_packed(packed, inodes, compressed, out)?,
            None => write_inode(tree, inodes, i, data, places, compressed, out)?,
        }
    }
    let end = start + places.blocks * BLOCK as u64;
    // fsck.erofs reads the header of extended attributes behind each inode, also of one that has
    // none; behind the last one there must be something.
    let room = end.saturating_sub(out.position());
    out.pad_to(if room < XATTR_HEADER {
        end + BLOCK as u64
    } else {
        end
    })
}

fn write_inode(
    tree: &Tree,
    inodes: &Inodes,
    i: usize,
    data: &[Data],
    places: &Places,
    compressed: &Compressed,
    out: &mut Out<'_>,
) -> Result<()> {
    let item = &inodes.items[i];
    let node = tree.node(item.node);
    let xattrs = inodes.xattr_body(item);
    let inline = inodes.inline(item);
    let (datalayout, u) = data[i].layout(inline);
    let inode = Inode {
        extended: item.extended(),
        datalayout,
        xattr_icount: xattr::icount(xattrs.len()),
        mode: node.meta.mode & 0o7777 | type_bits(&node.kind),
        nlink: item.links,
        size: item.size,
        u,
        // Only 32-bit programs of old ask for it. A count would differ behind whatever is inserted.
        ino: item.key.0 as u32,
        uid: node.meta.uid,
        gid: node.meta.gid,
        mtime: (node.meta.mtime.seconds, node.meta.mtime.nanoseconds),
    };
    out.put(&inode.encode())?;
    out.put(xattrs)?;
    match &node.kind {
        _ if datalayout == EROFS_INODE_COMPRESSED_COMPACT => {
            write_index(item.size, inodes.header(item), &data[i], compressed, out)
        }
        _ if !inline => Ok(()),
        Kind::Directory(_) => out.put(&directory(tree, inodes, item, &places.numbers)),
        Kind::File(content) => {
            let mut bytes = vec![0; item.size as usize];
            content
                .read_exact_at(0, &mut bytes)
                .context(|| path_of(tree, item.node))?;
            out.put(&bytes)
        }
        Kind::Symlink(target) => out.put(target),
        _ => Ok(()),
    }
}

/// What stands behind the header of what is not stored as it is.
fn write_index(
    size: u64,
    header: usize,
    data: &Data,
    compressed: &Compressed,
    out: &mut Out<'_>,
) -> Result<()> {
    let place = match data {
        Data::Cluster { start, .. } => Place::Blocks(*start),
        Data::Clusters(clusters) => Place::Blocks(clusters.start),
        Data::Inline(kept) => Place::Inline(kept.len()),
        Data::Fragment(at) => {
            return index::encode_fragment(*at, header, &mut |bytes| out.put(bytes));
        }
        Data::Number(_) | Data::Flat(_) => return Ok(()),
    };
    data.with_extents(size, |extents| {
        index::encode(
            size,
            header,
            compressed.algorithm,
            place,
            extents,
            &mut |bytes| out.put(bytes),
        )
    })?;
    if let Data::Inline(kept) = data {
        out.put(&compressed.small.read(*kept)?)
    } else {
        Ok(())
    }
}

fn write_packed(
    packed: &Packed,
    inodes: &Inodes,
    compressed: &Compressed,
    out: &mut Out<'_>,
) -> Result<()> {
    let Packed { item, data } = packed;
    let (datalayout, u) = data.layout(false);
    let inode = Inode {
        extended: item.extended(),
        datalayout,
        xattr_icount: 0,
        mode: 0o100000,
        nlink: item.links,
        size: item.size,
        u,
        ino: 0,
        uid: 0,
        gid: 0,
        mtime: (inodes.fixed.seconds, inodes.fixed.nanoseconds),
    };
    out.put(&inode.encode())?;
    write_index(item.size, inodes.header(item), data, compressed, out)
}

fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => 0o040000,
        Kind::File(_) => 0o100000,
        Kind::Symlink(_) => 0o120000,
        Kind::CharDevice { .. } => 0o020000,
        Kind::BlockDevice { .. } => 0o060000,
        Kind::Fifo => 0o010000,
        Kind::Socket => 0o140000,
    }
}

fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::Directory(_) => dir::EROFS_FT_DIR,
        Kind::File(_) => dir::EROFS_FT_REG_FILE,
        Kind::Symlink(_) => dir::EROFS_FT_SYMLINK,
        Kind::CharDevice { .. } => dir::EROFS_FT_CHRDEV,
        Kind::BlockDevice { .. } => dir::EROFS_FT_BLKDEV,
        Kind::Fifo => dir::EROFS_FT_FIFO,
        Kind::Socket => dir::EROFS_FT_SOCK,
    }
}
