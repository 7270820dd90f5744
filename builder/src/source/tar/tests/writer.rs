//! Makes archives block by block, so that a test can corrupt any byte.

/// An unfinished archive.
#[derive(Clone, Default)]
pub struct Writer(pub Vec<u8>);

/// A header and its content.
#[derive(Clone)]
pub struct Entry {
    pub block: [u8; 512],
    pub content: Vec<u8>,
}

impl Entry {
    /// A ustar entry, 0644 root:root of time 0.
    pub fn new(flag: u8, name: &[u8], content: &[u8]) -> Entry {
        let mut entry = Entry {
            block: [0; 512],
            content: content.to_vec(),
        };
        entry.block[..name.len()].copy_from_slice(name);
        entry.block[257..265].copy_from_slice(b"ustar\x0000");
        entry.block[156] = flag;
        entry
            .number(100..108, 0o644)
            .number(124..136, content.len() as u64)
    }

    pub fn put(mut self, at: usize, bytes: &[u8]) -> Entry {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn link(self, target: &[u8]) -> Entry {
        self.put(157, target)
    }

    pub fn number(self, range: std::ops::Range<usize>, value: u64) -> Entry {
        let width = range.len() - 1;
        self.put(range.start, format!("{value:0width$o}\0").as_bytes())
    }

    /// Sets the correct checksum.
    pub fn sealed(mut self) -> Entry {
        self.block[148..156].fill(b' ');
        let sum: u32 = self.block.iter().map(|&byte| u32::from(byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes())
    }
}

impl Writer {
    pub fn entry(mut self, entry: Entry) -> Writer {
        let entry = entry.sealed();
        self.0.extend(entry.block);
        self.bytes(&entry.content)
    }

    /// Content, padded to full blocks.
    pub fn bytes(mut self, content: &[u8]) -> Writer {
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &[u8]) -> Writer {
        self.entry(Entry::new(b'0', name.as_bytes(), content))
    }

    pub fn directory(self, name: &str) -> Writer {
        self.entry(Entry::new(b'5', name.as_bytes(), b""))
    }

    pub fn symlink(self, name: &str, target: &str) -> Writer {
        self.entry(Entry::new(b'2', name.as_bytes(), b"").link(target.as_bytes()))
    }

    pub fn link(self, name: &str, target: &str) -> Writer {
        self.entry(Entry::new(b'1', name.as_bytes(), b"").link(target.as_bytes()))
    }

    /// An extended header with these records.
    pub fn pax(self, records: &[(&[u8], &[u8])]) -> Writer {
        let records: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
        self.entry(Entry::new(b'x', b"extended", &records))
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A record of an extended header.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}
