//! Decompressors with a memory limit. Their errors distinguish an archive that needs more memory
//! from a corrupted one.

use std::io::{self, BufRead, Read};

use liblzma::stream::{self, Action, Status, Stream};

use crate::error::{Context, Error, Result};

/// The largest zstd window and xz dictionary, as a power of two: 256 MiB. The strongest presets
/// need 128 MiB (`zstd --ultra -22`) and 64 MiB (`xz -9`).
const WINDOW_LOG_MAX: u32 = 28;
/// Memory limit of xz: the dictionary and its own state.
const XZ_MEMORY_MAX: u64 = (1 << WINDOW_LOG_MAX) + (4 << 20);
/// Number of bytes that contain the window size of a zstd frame (RFC 8878, 3.1.1.1).
const ZSTD_HEADER: usize = 18;

/// zstd error codes (`ZSTD_ErrorCode`) that do not mean corrupted data.
const ZSTD_WINDOW_TOO_LARGE: usize = 16;
const ZSTD_DICTIONARY_WRONG: usize = 32;

/// A reader of concatenated zstd frames.
pub struct ZstdReader<'a, R: BufRead> {
    decoder: zstd::stream::read::Decoder<'a, R>,
    /// The window of the first frame, bytes.
    window: Option<u64>,
}

impl<R: BufRead> ZstdReader<'_, R> {
    pub fn new(mut packed: R) -> Result<Self> {
        let window = packed.fill_buf().ok().and_then(zstd_window);
        let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)
            .context(|| "starting the zstd decompressor")?;
        decoder
            .window_log_max(WINDOW_LOG_MAX)
            .context(|| "starting the zstd decompressor")?;
        Ok(ZstdReader { decoder, window })
    }

    fn explain(&self, error: io::Error) -> io::Error {
        let is = |code: usize| error.to_string() == zstd_safe::get_error_name(code.wrapping_neg());
        if is(ZSTD_WINDOW_TOO_LARGE) {
            let needed = self.window.filter(|window| *window > 1 << WINDOW_LOG_MAX);
            let hint = format!(
                "the archive is not damaged: compress it again without --long, or with --long={WINDOW_LOG_MAX} at most"
            );
            return io::Error::other(
                too_much_memory("zstd", needed, 1 << WINDOW_LOG_MAX).hint(hint),
            );
        }
        if is(ZSTD_DICTIONARY_WRONG) {
            let what = Error::new(
                "the archive was compressed by zstd with a dictionary, which is not part of it",
            );
            return io::Error::other(what.hint("compress it again without a dictionary (zstd -D)"));
        }
        error
    }
}

impl<R: BufRead> Read for ZstdReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder
            .read(buffer)
            .map_err(|error| self.explain(error))
    }
}

/// The window of a frame, from its header.
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let frame = frame
        .get(..ZSTD_HEADER.min(frame.len()))?
        .strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (&descriptor, rest) = frame.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The content is the window; its length follows the dictionary id.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let bytes = rest.get(dictionary..dictionary + length)?;
    let size = bytes
        .iter()
        .rev()
        .fold(0u64, |size, byte| size << 8 | u64::from(*byte));
    Some(if length == 2 { size + 256 } else { size })
}

/// A reader of concatenated xz streams.
pub struct Xz<R> {
    packed: R,
    stream: Stream,
    ended: bool,
}

impl<R: BufRead> Xz<R> {
    pub fn new(packed: R) -> Result<Self> {
        let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED);
        Ok(Xz {
            packed,
            stream: stream
                .map_err(io::Error::from)
                .context(|| "starting the xz decompressor")?,
            ended: false,
        })
    }

    fn explain(&mut self, error: stream::Error) -> io::Error {
        let known = match error {
            stream::Error::MemLimit => {
                let hint = "the archive is not damaged: compress it again with a dictionary of 256 MiB at most (`xz -9` needs 64 MiB)";
                too_much_memory("xz", self.needed(), XZ_MEMORY_MAX).hint(hint)
            }
            stream::Error::Mem => Error::new("not enough memory to decompress the archive")
                .hint("stop other programs, or compress the archive with less than `xz -9`"),
            stream::Error::Options => {
                Error::new("the archive was compressed by xz with a filter that is not supported")
                    .hint("the archive is not damaged: compress it again with plain `xz`")
            }
            error => return error.into(),
        };
        io::Error::other(known)
    }

    /// The memory that the stream needs; the decoder accepts no smaller limit.
    fn needed(&mut self) -> Option<u64> {
        let (mut too_little, mut enough) = (XZ_MEMORY_MAX, 1u64 << 33);
        self.stream.set_memlimit(enough).ok()?;
        while enough - too_little > 1 {
            let middle = too_little + (enough - too_little) / 2;
            match self.stream.set_memlimit(middle) {
                Ok(()) => enough = middle,
                Err(_) => too_little = middle,
            }
        }
        Some(enough)
    }
}

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        loop {
            let input = self.packed.fill_buf()?;
            let is_last = input.is_empty();
            let before = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.process(
                input,
                buffer,
                if is_last { Action::Finish } else { Action::Run },
            );
            let (taken, made) = (
                self.stream.total_in() - before.0,
                self.stream.total_out() - before.1,
            );
            self.packed.consume(taken as usize);
            let status = status.map_err(|error| self.explain(error))?;
            self.ended = status == Status::StreamEnd;
            if made > 0 || self.ended {
                return Ok(made as usize);
            }
            if is_last {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if taken == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the xz decoder makes no progress",
                ));
            }
        }
    }
}

fn too_much_memory(program: &str, needed: Option<u64>, allowed: u64) -> Error {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let needed = needed.map_or_else(
        || format!("more than {}", mib(allowed)),
        |needed| mib(needed).to_string(),
    );
    Error::new(format!(
        "{program} needs {needed} MiB of memory to decompress the archive, and the builder allows {} MiB",
        mib(allowed)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(packed: &mut dyn Read) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        packed
            .read_to_end(&mut bytes)
            .map(|_| bytes)
            .map_err(|error| error.to_string())
    }

    /// A frame with one raw block, `x`, whose header declares this window.
    fn zstd(window: u8) -> Vec<u8> {
        [
            &[0x28, 0xb5, 0x2f, 0xfd, 0, window][..],
            &[0x09, 0, 0, b'x'],
        ]
        .concat()
    }

    #[test]
    fn reads_zstd_windows_up_to_256_mib_and_explains_larger_ones() {
        let of = |log: u8| (log - 10) << 3;
        assert_eq!(
            read(&mut ZstdReader::new(&zstd(of(28))[..]).unwrap()).unwrap(),
            b"x"
        );
        let error = read(&mut ZstdReader::new(&zstd(of(30))[..]).unwrap()).unwrap_err();
        assert!(
            error.contains("zstd needs 1024 MiB")
                && error.contains("allows 256 MiB")
                && error.contains("--long"),
            "{error}"
        );
        assert!(!error.contains("is damaged"), "{error}");
        // The window of a second frame is unknown.
        let error = read(&mut ZstdReader::new(&[zstd(of(20)), zstd(of(30))].concat()[..]).unwrap())
            .unwrap_err();
        assert!(error.contains("more than 256 MiB"), "{error}");
        assert_eq!(
            (
                zstd_window(&zstd(of(27) | 4)),
                zstd_window(b"\x28\xb5\x2f\xfd\x20\x05")
            ),
            (Some((1 << 27) + (1 << 26)), Some(5))
        );
        assert_eq!(zstd_window(b"\x28\xb5\x2f\xfd"), None);
    }

    #[test]
    fn explains_a_missing_zstd_dictionary() {
        let samples: Vec<Vec<u8>> = (0..500)
            .map(|n| format!("line {n} of a text, number {n} of 500").into_bytes())
            .collect();
        let dictionary = zstd::dict::from_samples(&samples, 4096).unwrap();
        let packed = zstd::bulk::Compressor::with_dictionary(3, &dictionary)
            .unwrap()
            .compress(&samples[7])
            .unwrap();
        let error = read(&mut ZstdReader::new(&packed[..]).unwrap()).unwrap_err();
        assert!(
            error.contains("dictionary") && !error.contains("damaged"),
            "{error}"
        );
    }

    fn xz(dictionary: u32) -> Vec<u8> {
        let mut options = stream::LzmaOptions::new_preset(0).unwrap();
        options.dict_size(dictionary);
        let stream = Stream::new_stream_encoder(
            stream::Filters::new().lzma2(&options),
            stream::Check::Crc32,
        )
        .unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        io::Write::write_all(&mut encoder, b"text").unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reads_xz_dictionaries_up_to_256_mib_and_explains_larger_ones() {
        assert_eq!(
            read(&mut Xz::new(&xz(64 << 20)[..]).unwrap()).unwrap(),
            b"text"
        );
        // The dictionary byte of the header (xz-file-format, 5.3.1) with a matching checksum. An
        // encoder would need many times as much memory to write such a stream.
        for (byte, mib) in [(32u8, None), (34, Some("513")), (40, None)] {
            let mut packed = xz(4096);
            let header = 12..12 + (usize::from(packed[12]) + 1) * 4;
            let at = header.start + 4;
            assert_eq!(packed[at], 0);
            packed[at] = byte;
            let end = header.end - 4;
            let crc = crc32(&packed[header.start..end]);
            packed[end..header.end].copy_from_slice(&crc.to_le_bytes());
            let done = read(&mut Xz::new(&packed[..]).unwrap());
            match mib {
                None if byte == 32 => assert_eq!(done.unwrap(), b"text"),
                _ => {
                    let error = done.unwrap_err();
                    let mib = mib.unwrap_or("4097");
                    assert!(
                        error.contains(&format!("xz needs {mib} MiB"))
                            && error.contains("allows 260 MiB")
                            && error.contains("xz -9"),
                        "{error}"
                    );
                }
            }
        }
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
            }
        }
        !crc
    }
}
