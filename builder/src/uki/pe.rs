//! PE images (Microsoft's PE/COFF specification, PE32+): read, given more sections, and written
//! again.
//!
//! It promises that what it writes has its sections in order of address without overlap,
//! `VirtualSize <= SizeOfRawData` for each that was added (so that measuring one by its virtual
//! size measures its bytes and no padding), and no byte that depends on anything but its input.
//! It trusts nothing in what it reads: every offset is checked against the file.

use crate::error::{Error, Result};

/// Largest image read, bytes: a unified kernel image has some 20 MB.
pub const LIMIT: u64 = 1 << 30;

const SECTION_HEADER: usize = 40;
const COFF_HEADER: usize = 20;
/// Offsets in the optional header (PE32+).
mod optional {
    pub const MAGIC: usize = 0;
    pub const INITIALIZED_DATA: usize = 8;
    pub const CODE: usize = 4;
    pub const SECTION_ALIGNMENT: usize = 32;
    pub const FILE_ALIGNMENT: usize = 36;
    pub const SIZE_OF_IMAGE: usize = 56;
    pub const SIZE_OF_HEADERS: usize = 60;
    pub const CHECKSUM: usize = 64;
    pub const SUBSYSTEM: usize = 68;
    pub const DLL_CHARACTERISTICS: usize = 70;
    pub const DIRECTORIES: usize = 108;
    /// The certificate table's directory entry: file offset and size.
    pub const CERTIFICATES: usize = 112 + 4 * 8;
    /// The debug directory's entry; what it points to holds file offsets.
    pub const DEBUG: usize = 112 + 6 * 8;
    /// Up to the certificate table's entry; kernels end soon after it.
    pub const LEAST: usize = CERTIFICATES + 8;
}
const PE32_PLUS: u16 = 0x20b;
const X86_64: u16 = 0x8664;
const EFI_APPLICATION: u16 = 10;
const NX_COMPAT: u16 = 0x100;

const CODE: u32 = 0x20;
const INITIALIZED_DATA: u32 = 0x40;
const READ: u32 = 0x4000_0000;

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeSection {
    /// Name, up to eight bytes.
    pub name: String,
    /// Address in memory, from the image's base.
    pub address: u32,
    /// Bytes in memory.
    pub virtual_size: u32,
    /// What the loader makes of it.
    pub characteristics: u32,
    /// Bytes in the file, padded to its alignment.
    raw: Vec<u8>,
}

impl PeSection {
    /// The section's bytes without the padding, which is what the stub measures.
    pub fn data(&self) -> &[u8] {
        &self.raw[..self.raw.len().min(self.virtual_size as usize)]
    }
}

/// An image.
#[derive(Debug, Clone)]
pub struct PeImage {
    /// Everything before the section table.
    head: Vec<u8>,
    /// Offset of the optional header in it.
    optional: usize,
    sections: Vec<PeSection>,
    /// Attribute certificates, as they stand in the file.
    certificates: Vec<u8>,
}

impl PeImage {
    /// Reads an x86-64 image. `name` is for messages.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<PeImage> {
        parse(bytes)
            .map_err(|why| Error::new(format!("{name}: not an EFI program for x86-64: {why}")))
    }

    /// The sections in the table's order.
    pub fn sections(&self) -> &[PeSection] {
        &self.sections
    }

    /// The first section of this name.
    pub fn section(&self, name: &str) -> Option<&PeSection> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Attribute certificates (WIN_CERTIFICATE structures), empty when unsigned.
    pub fn certificates(&self) -> &[u8] {
        &self.certificates
    }

    /// Whether it says of itself that it is an EFI application.
    pub fn is_efi_application(&self) -> bool {
        self.u16(optional::SUBSYSTEM) == EFI_APPLICATION
    }

    /// What each section's address is a multiple of.
    pub fn section_alignment(&self) -> u32 {
        self.u32(optional::SECTION_ALIGNMENT)
    }

    /// Whether it runs where data is not executable.
    pub fn is_nx_compatible(&self) -> bool {
        self.u16(optional::DLL_CHARACTERISTICS) & NX_COMPAT != 0
    }

    /// Says that it does not.
    pub fn clear_nx_compatible(&mut self) {
        let flags = self.u16(optional::DLL_CHARACTERISTICS) & !NX_COMPAT;
        self.set(optional::DLL_CHARACTERISTICS, &flags.to_le_bytes());
    }

    /// Header slots that are free for more sections.
    pub fn free_slots(&self) -> usize {
        let used = self.head.len() + self.sections.len() * SECTION_HEADER;
        (self.u32(optional::SIZE_OF_HEADERS) as usize).saturating_sub(used) / SECTION_HEADER
    }

    /// Adds a section behind the others. `code` is for what is executed where it lies.
    pub fn add(&mut self, name: &str, data: Vec<u8>, code: bool) -> Result<()> {
        if name.is_empty() || name.len() > 8 {
            return Err(Error::new(format!("{name:?} is no name of a section")));
        }
        if self.free_slots() == 0 {
            return Err(Error::new(format!(
                "no room in the stub's header for the section {name}"
            ))
            .hint("use a newer systemd-stub, or leave sections out"));
        }
        let end = self
            .sections
            .last()
            .map_or(u64::from(self.u32(optional::SIZE_OF_HEADERS)), |last| {
                u64::from(last.address) + u64::from(last.virtual_size)
            });
        let address = end.next_multiple_of(u64::from(self.u32(optional::SECTION_ALIGNMENT)));
        let virtual_size = data.len() as u64;
        if address + virtual_size > LIMIT {
            return Err(Error::new(format!(
                "the section {name} has {virtual_size} bytes: the whole would be larger than {LIMIT}"
            )));
        }
        let characteristics = READ | if code { CODE } else { INITIALIZED_DATA };
        let raw = padded(data, self.u32(optional::FILE_ALIGNMENT));
        self.sections.push(PeSection {
            name: name.to_owned(),
            address: address as u32,
            virtual_size: virtual_size as u32,
            characteristics,
            raw,
        });
        Ok(())
    }

    /// Takes away the first section of this name and all that follow it.
    pub fn split_off(&mut self, name: &str) -> Vec<PeSection> {
        let at = self
            .sections
            .iter()
            .position(|section| section.name == name)
            .unwrap_or(self.sections.len());
        self.sections.split_off(at)
    }

    /// Bytes that a section may have without reaching into the next one's addresses; `None`: there
    /// is no such section.
    pub fn room(&self, name: &str) -> Option<u64> {
        let index = self
            .sections
            .iter()
            .position(|section| section.name == name)?;
        let next = self
            .sections
            .get(index + 1)
            .map_or(u32::MAX, |next| next.address);
        Some(u64::from(next - self.sections[index].address))
    }

    /// Replaces a section's bytes where it stands. Fails when there is no room for them.
    pub fn replace(&mut self, name: &str, data: Vec<u8>) -> Result<()> {
        if self.room(name).is_none_or(|room| data.len() as u64 > room) {
            return Err(Error::new(format!(
                "no room for {} bytes in the section {name}",
                data.len()
            )));
        }
        let alignment = self.u32(optional::FILE_ALIGNMENT);
        if let Some(section) = self
            .sections
            .iter_mut()
            .find(|section| section.name == name)
        {
            section.virtual_size = data.len() as u32;
            section.raw = padded(data, alignment);
        }
        Ok(())
    }

    /// The file's bytes, unsigned: headers, then each section's bytes in order.
    pub fn write(&self) -> Result<Vec<u8>> {
        let (file_alignment, section_alignment) = (
            self.u32(optional::FILE_ALIGNMENT),
            self.u32(optional::SECTION_ALIGNMENT),
        );
        let headers = self
            .u32(optional::SIZE_OF_HEADERS)
            .next_multiple_of(file_alignment) as usize;
        let total = self
            .sections
            .iter()
            .fold(headers, |sum, section| sum + section.raw.len());
        let mut out = Vec::with_capacity(total);
        out.extend_from_slice(&self.head);
        let mut at = headers as u32;
        let (mut code, mut initialized) = (0u32, 0u32);
        for section in &self.sections {
            let mut header = [0; SECTION_HEADER];
            header[..section.name.len()].copy_from_slice(section.name.as_bytes());
            let size = section.raw.len() as u32;
            let place = if size == 0 { 0 } else { at };
            for (offset, value) in [
                (8, section.virtual_size),
                (12, section.address),
                (16, size),
                (20, place),
                (36, section.characteristics),
            ] {
                header[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            }
            out.extend_from_slice(&header);
            at += size;
            if section.characteristics & CODE != 0 {
                code = code.saturating_add(size);
            } else if section.characteristics & INITIALIZED_DATA != 0 {
                initialized = initialized.saturating_add(size);
            }
        }
        if out.len() > headers {
            return Err(Error::new("the section table is larger than the headers"));
        }
        out.resize(headers, 0);
        for section in &self.sections {
            out.extend_from_slice(&section.raw);
        }
        let end = self
            .sections
            .last()
            .map_or(0, |last| last.address.saturating_add(last.virtual_size));
        let image = end
            .checked_next_multiple_of(section_alignment)
            .ok_or_else(|| Error::new("the sections' addresses end beyond 4 GiB"))?;
        let mut patch = |offset: usize, value: u32| {
            out[self.optional + offset..][..4].copy_from_slice(&value.to_le_bytes())
        };
        patch(optional::SIZE_OF_IMAGE, image);
        patch(optional::SIZE_OF_HEADERS, headers as u32);
        patch(optional::CODE, code);
        patch(optional::INITIALIZED_DATA, initialized);
        patch(optional::CHECKSUM, 0);
        patch(optional::CERTIFICATES, 0);
        patch(optional::CERTIFICATES + 4, 0);
        if self.u32(optional::DIRECTORIES) > 6 {
            // It would hold offsets in the old file.
            patch(optional::DEBUG, 0);
            patch(optional::DEBUG + 4, 0);
        }
        let count = self.optional - COFF_HEADER + 2;
        out[count..count + 2].copy_from_slice(&(self.sections.len() as u16).to_le_bytes());
        // A symbol table is not carried over.
        out[count + 6..count + 14].fill(0);
        Ok(out)
    }

    fn u16(&self, offset: usize) -> u16 {
        u16_at(&self.head, self.optional + offset).unwrap_or_default()
    }

    fn u32(&self, offset: usize) -> u32 {
        u32_at(&self.head, self.optional + offset).unwrap_or_default()
    }

    fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.head[self.optional + offset..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// Where Authenticode leaves bytes out of its digest: the checksum, the certificate table's
/// directory entry, and where the certificates would begin (Microsoft's "Windows Authenticode
/// Portable Executable Signature Format").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestGaps {
    /// File offset of the checksum's four bytes.
    pub checksum: usize,
    /// File offset of the directory entry's eight bytes.
    pub directory: usize,
    /// File offset of the first byte behind the image proper.
    pub end: usize,
}

/// Finds those places in an image's bytes.
pub fn digest_gaps(name: &str, bytes: &[u8]) -> Result<DigestGaps> {
    let image = PeImage::parse(name, bytes)?;
    let end = bytes.len() - image.certificates.len();
    Ok(DigestGaps {
        checksum: image.optional + optional::CHECKSUM,
        directory: image.optional + optional::CERTIFICATES,
        end,
    })
}

fn padded(mut data: Vec<u8>, alignment: u32) -> Vec<u8> {
    data.resize(data.len().next_multiple_of(alignment.max(1) as usize), 0);
    data
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn parse(bytes: &[u8]) -> std::result::Result<PeImage, String> {
    let short = || "it ends inside its headers".to_owned();
    if bytes.get(..2) != Some(b"MZ") {
        return Err("it does not start with MZ".to_owned());
    }
    let pe = u32_at(bytes, 0x3c).ok_or_else(short)? as usize;
    if pe > 1 << 20 || bytes.get(pe..pe + 4) != Some(b"PE\0\0") {
        return Err("it has no PE header".to_owned());
    }
    let coff = pe + 4;
    let machine = u16_at(bytes, coff).ok_or_else(short)?;
    let count = u16_at(bytes, coff + 2).ok_or_else(short)? as usize;
    let optional_size = u16_at(bytes, coff + 16).ok_or_else(short)? as usize;
    let optional = coff + COFF_HEADER;
    let table = optional + optional_size;
    let head = bytes.get(..table).ok_or_else(short)?.to_vec();
    if machine != X86_64 || u16_at(bytes, optional + optional::MAGIC) != Some(PE32_PLUS) {
        return Err(format!("it is for another machine (type {machine:#x})"));
    }
    let read = |offset| u32_at(&head, optional + offset).ok_or_else(short);
    if optional_size < optional::LEAST || read(optional::DIRECTORIES)? < 5 {
        return Err("its optional header is too short".to_owned());
    }
    let (section_alignment, file_alignment) = (
        read(optional::SECTION_ALIGNMENT)?,
        read(optional::FILE_ALIGNMENT)?,
    );
    // The specification: powers of two, the file's from 512 to 64 K. Kernels have smaller ones for
    // addresses than the specification allows.
    let sane = |alignment: u32| alignment.is_power_of_two() && (32..=1 << 21).contains(&alignment);
    if !sane(section_alignment) || !sane(file_alignment) {
        return Err(format!(
            "its sections are aligned to {section_alignment} and {file_alignment}"
        ));
    }
    let headers = read(optional::SIZE_OF_HEADERS)? as usize;
    if read(optional::DIRECTORIES)? as usize > (optional_size - 112) / 8 {
        return Err("its directories have no room in its optional header".to_owned());
    }
    if headers > bytes.len() || headers < table + count * SECTION_HEADER || count > 256 {
        return Err(format!(
            "its {count} sections' headers have no room in {headers} bytes"
        ));
    }
    let mut sections = Vec::with_capacity(count);
    let mut free = 0;
    for index in 0..count {
        let header = bytes
            .get(table + index * SECTION_HEADER..)
            .and_then(|rest| rest.get(..SECTION_HEADER))
            .ok_or_else(short)?;
        let section = parse_section(header, bytes, file_alignment)?;
        if section.virtual_size > 0 && section.address < free {
            return Err(format!(
                "its section {} overlaps the one before",
                section.name
            ));
        }
        free = section
            .address
            .checked_add(section.virtual_size)
            .ok_or("a section ends beyond 4 GiB")?;
        sections.push(section);
    }
    let (at, size) = (
        read(optional::CERTIFICATES)? as usize,
        read(optional::CERTIFICATES + 4)? as usize,
    );
    let certificates = match (at, size) {
        (_, 0) => Vec::new(),
        _ if at.checked_add(size) == Some(bytes.len()) && at >= headers => bytes[at..].to_vec(),
        _ => return Err("its signatures are not at its end".to_owned()),
    };
    Ok(PeImage {
        head,
        optional,
        sections,
        certificates,
    })
}

fn parse_section(
    header: &[u8],
    bytes: &[u8],
    file_alignment: u32,
) -> std::result::Result<PeSection, String> {
    let name = &header[..8];
    let name = &name[..name.iter().position(|&b| b == 0).unwrap_or(8)];
    let name = std::str::from_utf8(name)
        .map_err(|_| "a section's name is not text")?
        .to_owned();
    let field = |at| u32_at(header, at).unwrap_or_default();
    let (virtual_size, address, size, at) =
        (field(8), field(12), field(16) as usize, field(20) as usize);
    let raw = match size {
        0 => &[][..],
        _ => at
            .checked_add(size)
            .and_then(|end| bytes.get(at..end))
            .ok_or_else(|| format!("its section {name} ends behind the file"))?,
    };
    Ok(PeSection {
        name,
        address,
        virtual_size,
        characteristics: field(36),
        raw: padded(raw.to_vec(), file_alignment),
    })
}
