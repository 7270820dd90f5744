//! PE images (Microsoft's PE/COFF specification, PE32+): parsed, extended by sections, and written.
//!
//! A written image has its sections in order of address, without overlap. Each added section has
//! `VirtualSize <= SizeOfRawData`, so that a measurement by its virtual size covers its bytes and
//! no padding. The bytes depend on the input alone. Input is hostile: every offset is checked
//! against the file.

use std::mem::offset_of;

use object::LittleEndian as LE;
use object::pe::{
    IMAGE_DIRECTORY_ENTRY_DEBUG, IMAGE_DIRECTORY_ENTRY_SECURITY,
    IMAGE_DLLCHARACTERISTICS_NX_COMPAT, IMAGE_DOS_SIGNATURE, IMAGE_FILE_MACHINE_AMD64,
    IMAGE_NT_OPTIONAL_HDR64_MAGIC, IMAGE_NT_SIGNATURE, IMAGE_SCN_CNT_CODE,
    IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_READ, IMAGE_SUBSYSTEM_EFI_APPLICATION,
    ImageDataDirectory, ImageDosHeader, ImageFileHeader, ImageNtHeaders64, ImageOptionalHeader64,
    ImageSectionHeader,
};
use object::pod::{bytes_of, bytes_of_slice, from_bytes, slice_from_bytes};

use crate::error::{Error, Result};

/// Largest image that is read, bytes. A unified kernel image has about 20 MB.
pub const LIMIT: u64 = 1 << 30;

/// Largest offset of the NT headers, bytes.
const NT_OFFSET_LIMIT: usize = 1 << 20;
/// Most sections of an image.
const SECTIONS_LIMIT: usize = 256;
const SECTION_HEADER: usize = size_of::<ImageSectionHeader>();
const OPTIONAL_HEADER: usize = size_of::<ImageOptionalHeader64>();
const DIRECTORY: usize = size_of::<ImageDataDirectory>();

/// A section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeSection {
    /// Name, at most eight bytes.
    pub name: String,
    /// Address in memory, relative to the image's base.
    pub address: u32,
    /// Bytes in memory.
    pub virtual_size: u32,
    /// `IMAGE_SCN_*` flags.
    pub characteristics: u32,
    /// Bytes in the file, padded to the file alignment.
    raw: Vec<u8>,
}

impl PeSection {
    /// The section's bytes without the padding, which systemd-stub measures.
    pub fn data(&self) -> &[u8] {
        &self.raw[..self.raw.len().min(self.virtual_size as usize)]
    }

    /// The section's header. `offset` is the position of its bytes in the file.
    fn header(&self, offset: u32) -> ImageSectionHeader {
        let size = self.raw.len() as u32;
        let mut header = ImageSectionHeader::default();
        header.name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        header.virtual_size.set(LE, self.virtual_size);
        header.virtual_address.set(LE, self.address);
        header.size_of_raw_data.set(LE, size);
        let offset = if size == 0 { 0 } else { offset };
        header.pointer_to_raw_data.set(LE, offset);
        header.characteristics.set(LE, self.characteristics);
        header
    }
}

/// A PE image.
#[derive(Debug, Clone)]
pub struct PeImage {
    /// The DOS header, and everything up to the NT headers.
    dos: Vec<u8>,
    nt: ImageNtHeaders64,
    /// The data directories, at least [`IMAGE_DIRECTORY_ENTRY_SECURITY`] and those before it.
    directories: Vec<ImageDataDirectory>,
    /// Bytes of the optional header after the data directories.
    optional_tail: Vec<u8>,
    sections: Vec<PeSection>,
    /// Attribute certificates, as in the file.
    certificates: Vec<u8>,
}

impl PeImage {
    /// Parses an x86-64 image. `name` is for messages.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<PeImage> {
        parse(bytes)
            .map_err(|why| Error::new(format!("{name}: not an EFI program for x86-64: {why}")))
    }

    /// The sections in the order of the section table.
    pub fn sections(&self) -> &[PeSection] {
        &self.sections
    }

    /// The first section of this name.
    pub fn section(&self, name: &str) -> Option<&PeSection> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Attribute certificates (WIN_CERTIFICATE structures); empty if the image is not signed.
    pub fn certificates(&self) -> &[u8] {
        &self.certificates
    }

    /// Whether the subsystem is that of EFI applications.
    pub fn is_efi_application(&self) -> bool {
        self.nt.optional_header.subsystem.get(LE) == IMAGE_SUBSYSTEM_EFI_APPLICATION
    }

    /// The alignment of the sections' addresses.
    pub fn section_alignment(&self) -> u32 {
        self.nt.optional_header.section_alignment.get(LE)
    }

    fn file_alignment(&self) -> u32 {
        self.nt.optional_header.file_alignment.get(LE)
    }

    fn size_of_headers(&self) -> u32 {
        self.nt.optional_header.size_of_headers.get(LE)
    }

    /// Whether the image declares that it runs with data that is not executable.
    pub fn is_nx_compatible(&self) -> bool {
        let flags = self.nt.optional_header.dll_characteristics.get(LE);
        flags & IMAGE_DLLCHARACTERISTICS_NX_COMPAT != 0
    }

    /// Withdraws that declaration.
    pub fn clear_nx_compatible(&mut self) {
        let flags = &mut self.nt.optional_header.dll_characteristics;
        flags.set(LE, flags.get(LE) & !IMAGE_DLLCHARACTERISTICS_NX_COMPAT);
    }

    /// Bytes before the section table.
    fn section_table_offset(&self) -> usize {
        self.dos.len()
            + size_of::<ImageNtHeaders64>()
            + self.directories.len() * DIRECTORY
            + self.optional_tail.len()
    }

    /// Number of sections that the headers have room for, besides those that exist.
    pub fn free_slots(&self) -> usize {
        let used = self.section_table_offset() + self.sections.len() * SECTION_HEADER;
        (self.size_of_headers() as usize).saturating_sub(used) / SECTION_HEADER
    }

    /// Adds a section after the others. `code` marks a section that is executed where it is loaded.
    pub fn add(&mut self, name: &str, data: Vec<u8>, code: bool) -> Result<()> {
        if name.is_empty() || name.len() > 8 {
            return Err(Error::new(format!(
                "{name:?} is not the name of a section: it needs 1 to 8 bytes"
            )));
        }
        if self.free_slots() == 0 {
            return Err(Error::new(format!(
                "no room in the stub's headers for the section {name}"
            ))
            .hint("use a newer systemd-stub, or leave sections out"));
        }
        let end = self
            .sections
            .last()
            .map_or(u64::from(self.size_of_headers()), |last| {
                u64::from(last.address) + u64::from(last.virtual_size)
            });
        let address = end.next_multiple_of(u64::from(self.section_alignment()));
        let virtual_size = data.len() as u64;
        if address + virtual_size > LIMIT {
            return Err(Error::new(format!(
                "with the section {name} of {virtual_size} bytes the image exceeds {LIMIT} bytes"
            )));
        }
        let kind = if code {
            IMAGE_SCN_CNT_CODE
        } else {
            IMAGE_SCN_CNT_INITIALIZED_DATA
        };
        let raw = padded(data, self.file_alignment());
        self.sections.push(PeSection {
            name: name.to_owned(),
            address: address as u32,
            virtual_size: virtual_size as u32,
            characteristics: IMAGE_SCN_MEM_READ | kind,
            raw,
        });
        Ok(())
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.sections
            .iter()
            .position(|section| section.name == name)
    }

    /// Removes and returns the first section of this name and all sections after it.
    pub fn split_off(&mut self, name: &str) -> Vec<PeSection> {
        let at = self.position(name).unwrap_or(self.sections.len());
        self.sections.split_off(at)
    }

    /// Largest size of a section that does not overlap the next one, in bytes; `None` if there is
    /// no such section.
    pub fn room(&self, name: &str) -> Option<u64> {
        let index = self.position(name)?;
        let next = self
            .sections
            .get(index + 1)
            .map_or(u32::MAX, |next| next.address);
        Some(u64::from(next - self.sections[index].address))
    }

    /// Replaces the bytes of a section, which keeps its address. Fails if they do not fit.
    pub fn replace(&mut self, name: &str, data: Vec<u8>) -> Result<()> {
        if self.room(name).is_none_or(|room| data.len() as u64 > room) {
            return Err(Error::new(format!(
                "no room for {} bytes in the section {name}",
                data.len()
            )));
        }
        let alignment = self.file_alignment();
        if let Some(index) = self.position(name) {
            let section = &mut self.sections[index];
            section.virtual_size = data.len() as u32;
            section.raw = padded(data, alignment);
        }
        Ok(())
    }

    /// The bytes of the unsigned image: the headers, then each section's bytes in order.
    pub fn write(&self) -> Result<Vec<u8>> {
        let headers = self
            .size_of_headers()
            .next_multiple_of(self.file_alignment());
        let mut table = Vec::with_capacity(self.sections.len());
        let mut offset = headers;
        let (mut code, mut initialized) = (0u32, 0u32);
        for section in &self.sections {
            table.push(section.header(offset));
            let size = section.raw.len() as u32;
            offset += size;
            if section.characteristics & IMAGE_SCN_CNT_CODE != 0 {
                code = code.saturating_add(size);
            } else if section.characteristics & IMAGE_SCN_CNT_INITIALIZED_DATA != 0 {
                initialized = initialized.saturating_add(size);
            }
        }
        let end = self
            .sections
            .last()
            .map_or(0, |last| last.address.saturating_add(last.virtual_size));
        let image = end
            .checked_next_multiple_of(self.section_alignment())
            .ok_or_else(|| Error::new("the sections' addresses end beyond 4 GiB"))?;

        let mut nt = self.nt;
        let file_header = &mut nt.file_header;
        file_header
            .number_of_sections
            .set(LE, self.sections.len() as u16);
        // The symbol table is dropped.
        file_header.pointer_to_symbol_table.set(LE, 0);
        file_header.number_of_symbols.set(LE, 0);
        let optional = &mut nt.optional_header;
        optional.size_of_image.set(LE, image);
        optional.size_of_headers.set(LE, headers);
        optional.size_of_code.set(LE, code);
        optional.size_of_initialized_data.set(LE, initialized);
        optional.check_sum.set(LE, 0);
        let mut directories = self.directories.clone();
        // Both would hold offsets into the parsed file.
        for index in [IMAGE_DIRECTORY_ENTRY_SECURITY, IMAGE_DIRECTORY_ENTRY_DEBUG] {
            if let Some(directory) = directories.get_mut(index) {
                directory.virtual_address.set(LE, 0);
                directory.size.set(LE, 0);
            }
        }

        let mut out = Vec::with_capacity(offset as usize);
        out.extend_from_slice(&self.dos);
        out.extend_from_slice(bytes_of(&nt));
        out.extend_from_slice(bytes_of_slice(&directories));
        out.extend_from_slice(&self.optional_tail);
        out.extend_from_slice(bytes_of_slice(&table));
        if out.len() > headers as usize {
            return Err(Error::new("the section table is larger than the headers"));
        }
        out.resize(headers as usize, 0);
        for section in &self.sections {
            out.extend_from_slice(&section.raw);
        }
        Ok(out)
    }
}

/// The parts of an image that its Authenticode digest skips: the checksum, the certificate table's
/// directory entry, and the certificates (Microsoft's "Windows Authenticode Portable Executable
/// Signature Format").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestGaps {
    /// File offset of the checksum's four bytes.
    pub checksum: usize,
    /// File offset of the directory entry's eight bytes.
    pub directory: usize,
    /// File offset of the first byte after the image itself.
    pub end: usize,
}

/// Finds these parts in an image's bytes.
pub fn digest_gaps(name: &str, bytes: &[u8]) -> Result<DigestGaps> {
    let image = PeImage::parse(name, bytes)?;
    let nt = image.dos.len();
    let optional = nt + offset_of!(ImageNtHeaders64, optional_header);
    Ok(DigestGaps {
        checksum: optional + offset_of!(ImageOptionalHeader64, check_sum),
        directory: optional + OPTIONAL_HEADER + IMAGE_DIRECTORY_ENTRY_SECURITY * DIRECTORY,
        end: bytes.len() - image.certificates.len(),
    })
}

fn padded(mut data: Vec<u8>, alignment: u32) -> Vec<u8> {
    data.resize(data.len().next_multiple_of(alignment.max(1) as usize), 0);
    data
}

/// Parses an image. `Err` has the reason why it is invalid.
fn parse(bytes: &[u8]) -> std::result::Result<PeImage, String> {
    let short = |()| "it ends inside its headers".to_owned();
    let tail = |offset: usize| bytes.get(offset..).ok_or(()).map_err(short);
    if !bytes.starts_with(&IMAGE_DOS_SIGNATURE.to_le_bytes()) {
        return Err("it does not start with MZ".to_owned());
    }
    let (dos, _) = from_bytes::<ImageDosHeader>(bytes).map_err(short)?;
    let nt_offset = dos.e_lfanew.get(LE) as usize;
    let signature = IMAGE_NT_SIGNATURE.to_le_bytes();
    if nt_offset > NT_OFFSET_LIMIT || !tail(nt_offset).is_ok_and(|nt| nt.starts_with(&signature)) {
        return Err("it has no PE header".to_owned());
    }
    let (file_header, _) =
        from_bytes::<ImageFileHeader>(tail(nt_offset + signature.len())?).map_err(short)?;
    let machine = file_header.machine.get(LE);
    let count = usize::from(file_header.number_of_sections.get(LE));
    let optional_size = usize::from(file_header.size_of_optional_header.get(LE));
    let optional_offset = nt_offset + offset_of!(ImageNtHeaders64, optional_header);
    let table_offset = optional_offset + optional_size;
    let optional_bytes = bytes
        .get(optional_offset..table_offset)
        .ok_or(())
        .map_err(short)?;
    if machine != IMAGE_FILE_MACHINE_AMD64
        || !optional_bytes.starts_with(&IMAGE_NT_OPTIONAL_HDR64_MAGIC.to_le_bytes())
    {
        return Err(format!("it is for another machine (type {machine:#x})"));
    }
    let too_short = |()| "its optional header is too short".to_owned();
    let (optional, rest) =
        from_bytes::<ImageOptionalHeader64>(optional_bytes).map_err(too_short)?;
    let directory_count = optional.number_of_rva_and_sizes.get(LE) as usize;
    // Linux's kernels end soon after the certificate table's entry.
    if rest.len() / DIRECTORY <= IMAGE_DIRECTORY_ENTRY_SECURITY
        || directory_count <= IMAGE_DIRECTORY_ENTRY_SECURITY
    {
        return Err(too_short(()));
    }
    let (section_alignment, file_alignment) = (
        optional.section_alignment.get(LE),
        optional.file_alignment.get(LE),
    );
    // The specification asks for powers of two, and for 512 to 64 K in the file. Kernels have
    // smaller alignments of addresses than it allows.
    let sane = |alignment: u32| alignment.is_power_of_two() && (32..=1 << 21).contains(&alignment);
    if !sane(section_alignment) || !sane(file_alignment) {
        return Err(format!(
            "its sections are aligned to {section_alignment} and {file_alignment} bytes"
        ));
    }
    let (directories, optional_tail) =
        slice_from_bytes::<ImageDataDirectory>(rest, directory_count)
            .map_err(|()| "its data directories do not fit into its optional header".to_owned())?;
    let headers = optional.size_of_headers.get(LE) as usize;
    if headers > bytes.len()
        || headers < table_offset + count * SECTION_HEADER
        || count > SECTIONS_LIMIT
    {
        return Err(format!(
            "the headers of its {count} sections do not fit into {headers} bytes"
        ));
    }
    let (table, _) =
        slice_from_bytes::<ImageSectionHeader>(tail(table_offset)?, count).map_err(short)?;
    let mut sections = Vec::with_capacity(count);
    let mut free = 0;
    for header in table {
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
    let entry = &directories[IMAGE_DIRECTORY_ENTRY_SECURITY];
    // In this entry, and in no other, the address is an offset in the file.
    let (offset, size) = (
        entry.virtual_address.get(LE) as usize,
        entry.size.get(LE) as usize,
    );
    let certificates = match size {
        0 => Vec::new(),
        _ if offset.checked_add(size) == Some(bytes.len()) && offset >= headers => {
            bytes[offset..].to_vec()
        }
        _ => return Err("its signatures are not at its end".to_owned()),
    };
    let (nt, _) = from_bytes::<ImageNtHeaders64>(tail(nt_offset)?).map_err(short)?;
    Ok(PeImage {
        dos: bytes[..nt_offset].to_vec(),
        nt: *nt,
        directories: directories.to_vec(),
        optional_tail: optional_tail.to_vec(),
        sections,
        certificates,
    })
}

fn parse_section(
    header: &ImageSectionHeader,
    bytes: &[u8],
    file_alignment: u32,
) -> std::result::Result<PeSection, String> {
    let name = header.name.split(|byte| *byte == 0).next();
    let name = std::str::from_utf8(name.unwrap_or_default())
        .map_err(|_| "a section's name is not UTF-8")?
        .to_owned();
    let (size, offset) = (
        header.size_of_raw_data.get(LE) as usize,
        header.pointer_to_raw_data.get(LE) as usize,
    );
    let raw = match size {
        0 => &[][..],
        _ => offset
            .checked_add(size)
            .and_then(|end| bytes.get(offset..end))
            .ok_or_else(|| format!("its section {name} ends after the file's end"))?,
    };
    Ok(PeSection {
        name,
        address: header.virtual_address.get(LE),
        virtual_size: header.virtual_size.get(LE),
        characteristics: header.characteristics.get(LE),
        raw: padded(raw.to_vec(), file_alignment),
    })
}
