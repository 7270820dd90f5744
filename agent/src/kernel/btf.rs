//! The kernel's description of its own types (BTF), reduced to what the guard needs: offsets of
//! fields and numbers of hooks.
//!
//! Format: the kernel's Documentation/bpf/btf.rst. The running kernel is trusted. Nevertheless all
//! input is bounded, and unexpected input is an error, not a panic.

use std::fs::File;
use std::io::Read;

const PATH: &str = "/sys/kernel/btf/vmlinux";
/// Debian's kernels have 5 MB.
const LIMIT: u64 = 64 << 20;
const HEADER: usize = 24;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNC: u32 = 12;
/// Deepest nesting of structures without a name.
const DEPTH: usize = 8;

/// The kernel's types, and the numbers of the requested ones.
pub struct Btf {
    bytes: Vec<u8>,
    types: usize,
    strings: usize,
    /// Offsets of the types among `types`, from type 1 on.
    starts: Vec<u32>,
    structs: Vec<Option<u32>>,
    functions: Vec<Option<u32>>,
}

impl Btf {
    /// Reads the types, and finds structures and LSM hooks by name. The error is a phrase for a
    /// message.
    pub fn read(structs: &[&str], functions: &[&str]) -> Result<Btf, String> {
        let mut bytes = Vec::new();
        let mut file = File::open(PATH).map_err(|e| {
            format!("the kernel does not describe its types ({PATH}, CONFIG_DEBUG_INFO_BTF): {e}")
        })?;
        if let Ok(found) = file.metadata() {
            bytes.reserve_exact(found.len().min(LIMIT) as usize + 1);
        }
        Read::by_ref(&mut file)
            .take(LIMIT)
            .read_to_end(&mut bytes)
            .map_err(|e| format!("{PATH}: {e}"))?;
        Btf::parse(bytes, structs, functions).ok_or_else(|| format!("{PATH} has another format"))
    }

    fn parse(bytes: Vec<u8>, structs: &[&str], functions: &[&str]) -> Option<Btf> {
        if bytes.get(..2)? != [0x9f, 0xeb] {
            return None;
        }
        let header = word(&bytes, 4)? as usize;
        let types = header.checked_add(word(&bytes, 8)? as usize)?;
        let end = types.checked_add(word(&bytes, 12)? as usize)?;
        let strings = header.checked_add(word(&bytes, 16)? as usize)?;
        if header < HEADER || end > bytes.len() || strings > bytes.len() {
            return None;
        }
        let mut btf = Btf {
            bytes,
            types,
            strings,
            starts: Vec::with_capacity(end / 24),
            structs: vec![None; structs.len()],
            functions: vec![None; functions.len()],
        };
        let mut at = 0;
        while types + at < end {
            btf.starts.push(at as u32);
            let id = btf.starts.len() as u32;
            let info = word(&btf.bytes, types + at + 4)?;
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            match kind {
                KIND_STRUCT => btf.note(types + at, structs, "", id, false)?,
                KIND_FUNC => btf.note(types + at, functions, "bpf_lsm_", id, true)?,
                _ => {}
            }
            at += 12
                + match kind {
                    KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
                    6 | 13 => 8 * count,
                    3 => 12,
                    1 | 14 | 17 => 4,
                    2 | 7..=12 | 16 | 18 => 0,
                    _ => return None,
                };
        }
        Some(btf)
    }

    /// Keeps the number of a type if its name is one of the requested ones.
    fn note(
        &mut self,
        at: usize,
        names: &[&str],
        prefix: &str,
        id: u32,
        function: bool,
    ) -> Option<()> {
        let name = self
            .bytes
            .get(self.strings.checked_add(word(&self.bytes, at)? as usize)?..)?;
        let Some(name) = name.strip_prefix(prefix.as_bytes()) else {
            return Some(());
        };
        let is = |wanted: &&str| {
            name.get(wanted.len()) == Some(&0) && name.starts_with(wanted.as_bytes())
        };
        if let Some(index) = names.iter().position(is) {
            let list = if function {
                &mut self.functions
            } else {
                &mut self.structs
            };
            if let Some(found) = list.get_mut(index) {
                found.get_or_insert(id);
            }
        }
        Some(())
    }

    /// The number of a requested hook's function.
    pub fn function(&self, index: usize) -> Option<u32> {
        self.functions.get(index).copied().flatten()
    }

    /// The offset of a field in a requested structure, in bytes.
    pub fn offset(&self, index: usize, path: &[&str]) -> Option<u32> {
        let mut id = self.structs.get(index).copied().flatten()?;
        let mut bits = 0u32;
        for name in path {
            let (offset, member) = self.member(id, name, 0)?;
            bits = bits.checked_add(offset)?;
            id = self.bare(member)?;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    fn start(&self, id: u32) -> Option<usize> {
        Some(self.types + *self.starts.get((id as usize).checked_sub(1)?)? as usize)
    }

    /// A member's offset in bits and its type. Looks into structures and unions without a name.
    fn member(&self, id: u32, wanted: &str, depth: usize) -> Option<(u32, u32)> {
        let at = self.start(id)?;
        let info = word(&self.bytes, at + 4)?;
        if depth > DEPTH || !matches!(info >> 24 & 0x1f, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for index in 0..(info & 0xffff) as usize {
            let at = at + 12 + 12 * index;
            let (name, member) = (word(&self.bytes, at)?, word(&self.bytes, at + 4)?);
            // With the flag, the upper byte is the width of a bit field.
            let offset =
                word(&self.bytes, at + 8)? & if info >> 31 == 1 { 0xff_ffff } else { u32::MAX };
            let text = self.bytes.get(self.strings.checked_add(name as usize)?..)?;
            if text.first() == Some(&0) {
                if let Some((inner, found)) = self
                    .bare(member)
                    .and_then(|inner| self.member(inner, wanted, depth + 1))
                {
                    return Some((offset.checked_add(inner)?, found));
                }
            } else if text.starts_with(wanted.as_bytes()) && text.get(wanted.len()) == Some(&0) {
                return Some((offset, member));
            }
        }
        None
    }

    /// The type behind typedefs, const and volatile.
    fn bare(&self, mut id: u32) -> Option<u32> {
        for _ in 0..16 {
            let at = self.start(id)?;
            match word(&self.bytes, at + 4)? >> 24 & 0x1f {
                8..=11 | 18 => id = word(&self.bytes, at + 8)?,
                _ => return Some(id),
            }
        }
        None
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at.checked_add(4)?)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use adamant_skip::skip;

    /// Reads the running kernel's types. The whole-system tests show that the offsets are right,
    /// because the guard works.
    #[test]
    fn finds_fields_through_structures_without_a_name() {
        let Ok(btf) = Btf::read(&["file", "mount", "task_struct"], &["file_open"]) else {
            skip!(Host("this kernel has no BTF"));
        };
        assert!(btf.offset(0, &["f_path", "dentry"]) > btf.offset(0, &["f_path", "mnt"]));
        assert!(btf.offset(2, &["comm"]).is_some() && btf.offset(2, &["nothing"]).is_none());
    }

    #[test]
    fn refuses_corrupted_types_without_a_panic() {
        let mut bytes = vec![0u8; 256];
        bytes[..2].copy_from_slice(&[0x9f, 0xeb]);
        bytes[4] = 24;
        bytes[12] = 100;
        for at in 0..256 {
            for value in [0u8, 1, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                if let Some(btf) = Btf::parse(bytes, &["a"], &["b"]) {
                    assert_eq!(btf.offset(0, &["x"]).or(btf.function(0)), None);
                }
            }
        }
    }
}
