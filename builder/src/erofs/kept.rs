//! A compressor that remembers, between builds, what it made of an input.
//!
//! What comes from the cache is unpacked and compared with the input before it is used: a cache can
//! be wrong, an image can't.

use std::sync::Arc;

use super::compress::{self, Algorithm, Compressor, Segment};
use super::data::Settings;
use super::format::*;
use super::index::Extent;
use crate::cache::{Cache, Key};

/// Bytes of an extent in the cache: length (4), blocks (2), whether it is plain (1).
const EXTENT: usize = 7;
/// The work that makes a segment: another name whenever our code makes others of the same input.
const SEGMENT: &str = "segment 4";

/// A compressor, and what others before it made.
pub struct Keeping {
    algorithm: Algorithm,
    cluster: usize,
    /// Made when it is needed first.
    compressor: Option<Compressor>,
    cache: Option<Arc<Cache>>,
    unpacked: Vec<u8>,
}

impl Keeping {
    /// `None` where nothing is compressed.
    pub fn new(settings: &Settings) -> Option<Keeping> {
        let algorithm = settings.algorithm?;
        // LZ4 compresses about as fast as a digest is made and looked up.
        let cache = settings
            .cache
            .clone()
            .filter(|_| algorithm != Algorithm::Lz4);
        Some(Keeping {
            algorithm,
            cluster: settings.cluster,
            compressor: None,
            cache,
            unpacked: Vec::new(),
        })
    }

    /// As [`Compressor::whole`].
    pub fn whole(&mut self, input: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let key = self
            .cache
            .as_ref()
            .map(|_| self.key("file in one cluster", input));
        if let Some(found) = self.found(key.as_ref()) {
            // Nothing stands for what does not fit.
            if found.is_empty() || found.len() <= BLOCK && self.holds(&found, false, input) {
                return Ok(Some(found).filter(|found| !found.is_empty()));
            }
        }
        let made = self.compressor()?.whole(input).map(<[u8]>::to_vec);
        self.keep(key, made.as_deref().unwrap_or_default());
        Ok(made)
    }

    /// As [`Compressor::segment`].
    pub fn segment(&mut self, input: &[u8], data: Vec<u8>) -> Result<Segment, String> {
        let key = self.cache.as_ref().map(|_| self.key(SEGMENT, input));
        if let Some(found) = self.found(key.as_ref())
            && let Some(segment) = decode(found)
            && self.is_of(&segment, input)
        {
            return Ok(segment);
        }
        let made = self.compressor()?.segment(input, data)?;
        if key.is_some() {
            self.keep(key, &encode(&made));
        }
        Ok(made)
    }

    fn compressor(&mut self) -> Result<&mut Compressor, String> {
        match &mut self.compressor {
            Some(compressor) => Ok(compressor),
            none => Ok(none.insert(Compressor::new(self.algorithm, self.cluster)?)),
        }
    }

    fn key(&self, work: &str, input: &[u8]) -> Key {
        let level = match self.algorithm {
            Algorithm::Lz4 => 0,
            Algorithm::Lz4hc => 1 << 32,
            Algorithm::Zstd(level) => {
                2 << 32 | u64::from(level.unsigned_abs()) | u64::from(level < 0) << 31
            }
        };
        Key::new(work, &[level, self.cluster as u64], input)
    }

    fn found(&self, key: Option<&Key>) -> Option<Vec<u8>> {
        self.cache.as_ref()?.get(key?)
    }

    fn keep(&self, key: Option<Key>, value: &[u8]) {
        if let (Some(cache), Some(key)) = (&self.cache, key) {
            cache.put(key, value);
        }
    }

    /// Whether a segment holds these bytes, in clusters that a reader takes.
    fn is_of(&mut self, segment: &Segment, input: &[u8]) -> bool {
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
            if !possible || !self.holds(cluster, extent.plain, bytes) {
                return false;
            }
            (stored, rest) = (behind, left);
        }
        stored.is_empty() && rest.is_empty()
    }

    fn holds(&mut self, cluster: &[u8], plain: bool, bytes: &[u8]) -> bool {
        if plain {
            return cluster.starts_with(bytes);
        }
        self.unpacked
            .resize(self.unpacked.len().max(bytes.len()), 0);
        let out = &mut self.unpacked[..bytes.len()];
        compress::unpack(self.algorithm.code(), cluster, out) && out == bytes
    }
}

/// A segment as it is kept: number of extents (4), the extents, the blocks.
fn encode(segment: &Segment) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + segment.extents.len() * EXTENT + segment.data.len());
    bytes.extend_from_slice(&(segment.extents.len() as u32).to_le_bytes());
    for extent in &segment.extents {
        bytes.extend_from_slice(&extent.len.to_le_bytes());
        bytes.extend_from_slice(&extent.blocks.to_le_bytes());
        bytes.push(u8::from(extent.plain));
    }
    bytes.extend_from_slice(&segment.data);
    bytes
}

fn decode(mut bytes: Vec<u8>) -> Option<Segment> {
    let end = (get32(&bytes, 0)? as usize)
        .checked_mul(EXTENT)?
        .checked_add(4)?;
    let extents = bytes.get(4..end)?.as_chunks::<EXTENT>().0.iter();
    let extents = extents
        .map(|e| Extent {
            len: get32(e, 0).unwrap_or(0),
            blocks: get16(e, 4).unwrap_or(0),
            plain: e[6] != 0,
        })
        .collect();
    bytes.drain(..end);
    Some(Segment {
        data: bytes,
        extents,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeping(folder: &std::path::Path, algorithm: Algorithm) -> Keeping {
        let cache = Some(Arc::new(Cache::open(folder).unwrap()));
        Keeping::new(&Settings {
            algorithm: Some(algorithm),
            cluster: 65536,
            jobs: 1,
            cache,
        })
        .unwrap()
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

    fn segment(keeping: &mut Keeping, input: &[u8]) -> (Vec<u8>, Vec<Extent>) {
        let segment = keeping.segment(input, Vec::new()).unwrap();
        (segment.data, segment.extents)
    }

    #[test]
    fn whatever_the_cache_says_the_bytes_are_those_of_a_fresh_build() {
        for algorithm in [Algorithm::Lz4hc, Algorithm::Zstd(3)] {
            let folder = std::env::temp_dir()
                .join(format!("adamant-kept-{}-{algorithm:?}", std::process::id()));
            let input = input();
            let small = &input[..3000];
            let mut fresh = Keeping::new(&Settings {
                algorithm: Some(algorithm),
                cluster: 65536,
                jobs: 1,
                cache: None,
            })
            .unwrap();
            let (right, whole) = (segment(&mut fresh, &input), fresh.whole(small).unwrap());
            assert!(right.1.len() > 4 && whole.is_some());

            // Cold, then warm.
            for _ in 0..2 {
                let mut keeping = keeping(&folder, algorithm);
                assert!(
                    segment(&mut keeping, &input) == right
                        && keeping.whole(small).unwrap() == whole,
                    "{algorithm:?}"
                );
                Arc::into_inner(keeping.cache.take().unwrap())
                    .unwrap()
                    .finish();
            }

            // Lies with good digests: another input's segment, half of the right one, extents that
            // overlap or are none, noise, nothing.
            let mut other = input.clone();
            other[1000] ^= 1;
            let made = fresh.segment(&other, Vec::new()).unwrap();
            let good = encode(&fresh.segment(&input, Vec::new()).unwrap());
            let mut long = good.clone();
            long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
            let mut empty = good.clone();
            empty[8..10].copy_from_slice(&0u16.to_le_bytes());
            let mut many = good.clone();
            many[..4].copy_from_slice(&u32::MAX.to_le_bytes());
            for lie in [
                encode(&made),
                good[..good.len() / 2].to_vec(),
                long,
                empty,
                many,
                vec![0x55; 5000],
                Vec::new(),
            ] {
                std::fs::remove_dir_all(&folder).unwrap();
                let mut liar = keeping(&folder, algorithm);
                let keys = (
                    liar.key(SEGMENT, &input),
                    liar.key("file in one cluster", small),
                );
                let cache = Arc::into_inner(liar.cache.take().unwrap()).unwrap();
                cache.put(keys.0, &lie);
                cache.put(keys.1, &lie[..lie.len().min(900)]);
                cache.finish();
                let mut keeping = keeping(&folder, algorithm);
                assert!(
                    segment(&mut keeping, &input) == right,
                    "{algorithm:?}, {} bytes",
                    lie.len()
                );
                // That a file does not fit is the one thing that is believed: it then is stored in
                // another way, as whole.
                let found = keeping.whole(small).unwrap();
                assert!(found == whole || lie.is_empty() && found.is_none());
            }
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
}
