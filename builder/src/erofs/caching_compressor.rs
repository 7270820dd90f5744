//! A compressor that caches its results between builds.
//!
//! A cached result is decompressed and compared with the input before it is used, so a corrupted
//! cache can't corrupt an image.

use std::sync::Arc;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::algorithm::Algorithm;
use super::compress::{self, Compressor, Segment};
use super::format::*;
use super::index::ClusterExtent;
use super::settings::DataSettings;
use crate::cache::{Cache, CacheKey};

/// An extent in the cache.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CachedExtent {
    len: U32,
    blocks: U16,
    /// 0 or 1.
    plain: u8,
}

/// Name of the work for the cache key of a segment. Change it when the code gives another result
/// for the same input.
const SEGMENT: &str = "segment 4";
/// The same for a file in one cluster.
const WHOLE: &str = "file in one cluster";

/// A compressor with a cache in front of it.
pub struct CachingCompressor {
    algorithm: Algorithm,
    cluster: usize,
    /// Made on first use.
    compressor: Option<Compressor>,
    cache: Option<Arc<Cache>>,
    /// Buffer for checking cached results.
    decompressed: Vec<u8>,
}

impl CachingCompressor {
    /// `None` for settings without compression.
    pub fn new(settings: &DataSettings) -> Option<CachingCompressor> {
        let algorithm = settings.algorithm?;
        // Fast LZ4 takes about as long as computing and looking up a digest.
        let cache = settings
            .cache
            .clone()
            .filter(|_| algorithm != Algorithm::Lz4);
        Some(CachingCompressor {
            algorithm,
            cluster: settings.cluster,
            compressor: None,
            cache,
            decompressed: Vec::new(),
        })
    }

    /// Like [`Compressor::compress_whole`].
    pub fn compress_whole(&mut self, input: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let key = self
            .cache
            .as_ref()
            .map(|cache| self.key(cache, WHOLE, input));
        if let Some(found) = self.get(key.as_ref()) {
            // An empty value means that the file does not fit.
            if found.is_empty()
                || found.len() <= BLOCK && self.decompresses_to(&found, false, input)
            {
                return Ok(Some(found).filter(|found| !found.is_empty()));
            }
        }
        let made = self.compressor()?.compress_whole(input).map(<[u8]>::to_vec);
        self.put(key, made.as_deref().unwrap_or_default());
        Ok(made)
    }

    /// Like [`Compressor::compress_segment`].
    pub fn compress_segment(&mut self, input: &[u8], data: Vec<u8>) -> Result<Segment, String> {
        let key = self
            .cache
            .as_ref()
            .map(|cache| self.key(cache, SEGMENT, input));
        if let Some(found) = self.get(key.as_ref())
            && let Some(segment) = decode(found)
            && self.is_valid(&segment, input)
        {
            return Ok(segment);
        }
        let made = self.compressor()?.compress_segment(input, data)?;
        if key.is_some() {
            self.put(key, &encode(&made));
        }
        Ok(made)
    }

    fn compressor(&mut self) -> Result<&mut Compressor, String> {
        match &mut self.compressor {
            Some(compressor) => Ok(compressor),
            none => Ok(none.insert(Compressor::new(self.algorithm, self.cluster)?)),
        }
    }

    fn key(&self, cache: &Cache, work: &str, input: &[u8]) -> CacheKey {
        let level = match self.algorithm {
            Algorithm::Lz4 => 0,
            Algorithm::Lz4hc => 1 << 32,
            Algorithm::Zstd(level) => {
                2 << 32 | u64::from(level.unsigned_abs()) | u64::from(level < 0) << 31
            }
        };
        cache.key(work, &[level, self.cluster as u64], input)
    }

    fn get(&self, key: Option<&CacheKey>) -> Option<Vec<u8>> {
        self.cache.as_ref()?.get(key?)
    }

    fn put(&self, key: Option<CacheKey>, value: &[u8]) {
        if let (Some(cache), Some(key)) = (&self.cache, key) {
            cache.put(key, value);
        }
    }

    /// Whether a segment decompresses to `input`, in clusters that readers accept.
    fn is_valid(&mut self, segment: &Segment, input: &[u8]) -> bool {
        let (mut stored, mut rest) = (&segment.data[..], input);
        for extent in &segment.extents {
            let (Some((cluster, behind)), Some((bytes, left))) = (
                stored.split_at_checked(usize::from(extent.blocks) * BLOCK),
                rest.split_at_checked(extent.len as usize),
            ) else {
                return false;
            };
            let possible = !bytes.is_empty()
                && cluster.len() <= self.cluster
                && (cluster.len() < bytes.len() || extent.plain && cluster.len() == BLOCK);
            if !possible || !self.decompresses_to(cluster, extent.plain, bytes) {
                return false;
            }
            (stored, rest) = (behind, left);
        }
        stored.is_empty() && rest.is_empty()
    }

    fn decompresses_to(&mut self, cluster: &[u8], plain: bool, bytes: &[u8]) -> bool {
        if plain {
            return cluster.starts_with(bytes);
        }
        self.decompressed
            .resize(self.decompressed.len().max(bytes.len()), 0);
        let out = &mut self.decompressed[..bytes.len()];
        compress::decompress_cluster(self.algorithm.code(), cluster, out) && out == bytes
    }
}

/// A segment in the cache: number of extents, the extents, the blocks.
fn encode(segment: &Segment) -> Vec<u8> {
    let count = U32::new(segment.extents.len() as u32);
    let mut bytes = count.as_bytes().to_vec();
    for extent in &segment.extents {
        let extent = CachedExtent {
            len: extent.len.into(),
            blocks: extent.blocks.into(),
            plain: u8::from(extent.plain),
        };
        bytes.extend_from_slice(extent.as_bytes());
    }
    bytes.extend_from_slice(&segment.data);
    bytes
}

fn decode(mut bytes: Vec<u8>) -> Option<Segment> {
    let (count, rest) = U32::read_from_prefix(&bytes).ok()?;
    let count = count.get() as usize;
    let (extents, data) = <[CachedExtent]>::ref_from_prefix_with_elems(rest, count).ok()?;
    let extents = extents
        .iter()
        .map(|extent| ClusterExtent {
            len: extent.len.get(),
            blocks: extent.blocks.get(),
            plain: extent.plain != 0,
        })
        .collect();
    let start = bytes.len() - data.len();
    bytes.drain(..start);
    Some(Segment {
        data: bytes,
        extents,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressor(cache: Option<Cache>, algorithm: Algorithm) -> CachingCompressor {
        CachingCompressor::new(&DataSettings {
            algorithm: Some(algorithm),
            cluster: 65536,
            jobs: 1,
            cache: cache.map(Arc::new),
        })
        .unwrap()
    }

    fn open(folder: &std::path::Path) -> Option<Cache> {
        Some(Cache::open(folder, b"test").unwrap())
    }

    /// Text that shrinks, noise that does not, and text again.
    fn input() -> Vec<u8> {
        let mut state = 7u64;
        let noise = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8
        });
        let text =
            (0..60_000u32).flat_map(|i| format!("line {} of a text\n", i * i % 977).into_bytes());
        text.clone()
            .chain(noise.take(300_000))
            .chain(text)
            .collect()
    }

    fn segment(compressor: &mut CachingCompressor, input: &[u8]) -> (Vec<u8>, Vec<ClusterExtent>) {
        let segment = compressor.compress_segment(input, Vec::new()).unwrap();
        (segment.data, segment.extents)
    }

    #[test]
    fn a_corrupted_cache_never_changes_the_output() {
        for algorithm in [Algorithm::Lz4hc, Algorithm::Zstd(3)] {
            let scratch = tempfile::tempdir().unwrap();
            let folder = scratch.path();
            let input = input();
            let small = &input[..3000];
            let mut fresh = compressor(None, algorithm);
            let right = segment(&mut fresh, &input);
            let whole = fresh.compress_whole(small).unwrap();
            assert!(right.1.len() > 4 && whole.is_some());

            // Cold, then warm.
            for _ in 0..2 {
                let mut caching = compressor(open(folder), algorithm);
                assert!(
                    segment(&mut caching, &input) == right
                        && caching.compress_whole(small).unwrap() == whole,
                    "{algorithm:?}"
                );
                Arc::into_inner(caching.cache.take().unwrap())
                    .unwrap()
                    .finish();
            }

            // Wrong values with right digests: another input's segment, half of the right one,
            // extents that overlap or are empty, noise, nothing.
            let mut other = input.clone();
            other[1000] ^= 1;
            let made = fresh.compress_segment(&other, Vec::new()).unwrap();
            let good = encode(&fresh.compress_segment(&input, Vec::new()).unwrap());
            let mut long = good.clone();
            long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
            let mut empty = good.clone();
            empty[8..10].copy_from_slice(&0u16.to_le_bytes());
            let mut many = good.clone();
            many[..4].copy_from_slice(&u32::MAX.to_le_bytes());
            for wrong in [
                encode(&made),
                good[..good.len() / 2].to_vec(),
                long,
                empty,
                many,
                vec![0x55; 5000],
                Vec::new(),
            ] {
                let mut writer = compressor(open(folder), algorithm);
                let cache = Arc::into_inner(writer.cache.take().unwrap()).unwrap();
                let keys = (
                    writer.key(&cache, SEGMENT, &input),
                    writer.key(&cache, WHOLE, small),
                );
                cache.put(keys.0, &wrong);
                cache.put(keys.1, &wrong[..wrong.len().min(900)]);
                cache.finish();
                let mut caching = compressor(open(folder), algorithm);
                assert!(
                    segment(&mut caching, &input) == right,
                    "{algorithm:?}, {} bytes",
                    wrong.len()
                );
                // "Does not fit" is the only value that can't be checked. The file is then stored
                // uncompressed, which is right, too.
                let found = caching.compress_whole(small).unwrap();
                assert!(found == whole || wrong.is_empty() && found.is_none());
            }
        }
    }
}
