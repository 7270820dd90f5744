//! Parses the parts of an ELF file that decide whether the kernel and the dynamic loader can start
//! it.
//!
//! The file comes from a source and is hostile. Only the headers and the strings that they refer to
//! are read, within the kernel's limits (fs/binfmt_elf.c).

use object::elf::{
    DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRTAB, ELFMAG, EM_386, EM_AARCH64,
    EM_ARM, EM_X86_64, ET_DYN, ET_EXEC, FileHeader32, FileHeader64, PT_DYNAMIC, PT_INTERP, PT_LOAD,
};
use object::pod;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{LittleEndian, Pod};

use crate::tree::Content;

/// Maximum size of the program headers in the kernel, bytes.
const PROGRAM_HEADERS_LIMIT: usize = 64 << 10;
/// Maximum size of the dynamic section, bytes: 8,192 entries.
const DYNAMIC_LIMIT: u64 = 128 << 10;
/// Maximum length of a string, bytes (PATH_MAX).
const STRING_LIMIT: usize = 4096;

/// The processor and word size of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfMachine {
    /// x86-64.
    X86_64,
    /// 32-bit x86, which an x86-64 kernel also runs.
    I386,
    /// Another processor: its name, or its number in the header.
    Other(&'static str, u16),
}

/// The requirements of a program or library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// Its machine. For another machine, nothing else is read.
    pub machine: ElfMachine,
    /// The dynamic loader (`PT_INTERP`).
    pub loader: Option<Vec<u8>>,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<Vec<u8>>,
    /// `DT_SONAME`.
    pub soname: Option<Vec<u8>>,
    /// `DT_RPATH`, not split at its colons.
    pub rpath: Option<Vec<u8>>,
    /// `DT_RUNPATH`, not split at its colons.
    pub runpath: Option<Vec<u8>>,
}

/// Why an ELF file cannot be started.
pub type Malformed = &'static str;

/// Whether a file starts with the ELF magic number.
pub fn is_elf(head: &[u8]) -> bool {
    head.starts_with(&ELFMAG)
}

/// Parses a file that starts with the ELF magic number.
pub fn read(content: &Content) -> Result<Elf, Malformed> {
    let mut start = [0; 20];
    read_at(content, 0, &mut start)?;
    let (class, data) = (start[4], start[5]);
    let machine = u16::from_le_bytes([start[18], start[19]]);
    match (class, data, machine) {
        (2, 1, EM_X86_64) => read_as::<FileHeader64<LittleEndian>>(content, ElfMachine::X86_64),
        (1, 1, EM_386) => read_as::<FileHeader32<LittleEndian>>(content, ElfMachine::I386),
        (1 | 2, 1 | 2, _) => {
            let machine = if data == 2 {
                machine.swap_bytes()
            } else {
                machine
            };
            let name = match machine {
                EM_AARCH64 => "64-bit Arm",
                EM_ARM => "32-bit Arm",
                EM_X86_64 => "x32",
                243 => "RISC-V",
                22 => "S/390",
                21 => "64-bit PowerPC",
                _ => "",
            };
            Ok(Elf {
                machine: ElfMachine::Other(name, machine),
                loader: None,
                needed: Vec::new(),
                soname: None,
                rpath: None,
                runpath: None,
            })
        }
        _ => Err("its header has an unknown class or byte order"),
    }
}

fn read_as<H: FileHeader<Endian = LittleEndian>>(
    content: &Content,
    machine: ElfMachine,
) -> Result<Elf, Malformed> {
    let header: H = read_pod(content, 0, "its header is truncated")?;
    if !matches!(header.e_type(LittleEndian), ET_EXEC | ET_DYN) {
        return Err("it is an object file or a core dump, not a program");
    }
    let count = usize::from(header.e_phnum(LittleEndian));
    let size = count * size_of::<H::ProgramHeader>();
    if usize::from(header.e_phentsize(LittleEndian)) != size_of::<H::ProgramHeader>()
        || count == 0
        || size > PROGRAM_HEADERS_LIMIT
    {
        return Err("its program headers are not those of a program");
    }
    let segments: Vec<H::ProgramHeader> = (0..count as u64)
        .map(|at| {
            let offset = header
                .e_phoff(LittleEndian)
                .into()
                .checked_add(at * size_of::<H::ProgramHeader>() as u64);
            read_pod(
                content,
                offset.ok_or("its program headers are beyond its end")?,
                "its program headers are beyond its end",
            )
        })
        .collect::<Result<_, _>>()?;
    let mut elf = Elf {
        machine,
        loader: None,
        needed: Vec::new(),
        soname: None,
        rpath: None,
        runpath: None,
    };
    if let Some(segment) = segments
        .iter()
        .find(|segment| segment.p_type(LittleEndian) == PT_INTERP)
    {
        let length: u64 = segment.p_filesz(LittleEndian).into();
        if !(2..=STRING_LIMIT as u64).contains(&length) {
            return Err("the path of its dynamic loader is too long or empty");
        }
        elf.loader = Some(string(
            content,
            segment.p_offset(LittleEndian).into(),
            "the path of its dynamic loader is beyond its end",
        )?);
    }
    if let Some(segment) = segments
        .iter()
        .find(|segment| segment.p_type(LittleEndian) == PT_DYNAMIC)
    {
        read_dynamic::<H>(content, segment, &segments, &mut elf)?;
    }
    Ok(elf)
}

fn read_dynamic<H: FileHeader<Endian = LittleEndian>>(
    content: &Content,
    segment: &H::ProgramHeader,
    segments: &[H::ProgramHeader],
    elf: &mut Elf,
) -> Result<(), Malformed> {
    const BEYOND: Malformed = "its dynamic section is beyond its end";
    let (offset, length): (u64, u64) = (
        segment.p_offset(LittleEndian).into(),
        segment.p_filesz(LittleEndian).into(),
    );
    let mut entries: Vec<(u32, u64)> = Vec::new();
    for at in 0..length.min(DYNAMIC_LIMIT) / size_of::<H::Dyn>() as u64 {
        let entry: H::Dyn = read_pod(
            content,
            offset
                .checked_add(at * size_of::<H::Dyn>() as u64)
                .ok_or(BEYOND)?,
            BEYOND,
        )?;
        match entry.tag32(LittleEndian) {
            Some(DT_NULL) => break,
            Some(tag) => entries.push((tag, entry.d_val(LittleEndian).into())),
            None => {}
        }
    }
    // The address of the table is in memory: the segment that contains it gives the file offset.
    let Some((_, address)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else {
        return Ok(());
    };
    let table = segments
        .iter()
        .filter(|segment| segment.p_type(LittleEndian) == PT_LOAD)
        .find_map(|segment| {
            let (start, length, offset): (u64, u64, u64) = (
                segment.p_vaddr(LittleEndian).into(),
                segment.p_filesz(LittleEndian).into(),
                segment.p_offset(LittleEndian).into(),
            );
            let inside = address
                .checked_sub(start)
                .filter(|inside| *inside < length)?;
            offset.checked_add(inside)
        });
    let table = table.ok_or("its table of strings is in no segment")?;
    for (tag, value) in entries {
        let text = || {
            string(
                content,
                table.checked_add(value).ok_or(BEYOND)?,
                "a string of its dynamic section is beyond its end",
            )
        };
        match tag {
            DT_NEEDED => elf.needed.push(text()?),
            DT_SONAME => elf.soname = Some(text()?),
            DT_RPATH => elf.rpath = Some(text()?),
            DT_RUNPATH => elf.runpath = Some(text()?),
            _ => {}
        }
    }
    Ok(())
}

/// A structure of the file.
fn read_pod<T: Pod>(content: &Content, offset: u64, beyond: Malformed) -> Result<T, Malformed> {
    let mut bytes = vec![0; size_of::<T>()];
    content
        .read_exact_at(offset, &mut bytes)
        .map_err(|_| beyond)?;
    pod::from_bytes::<T>(&bytes)
        .map(|(value, _)| *value)
        .map_err(|()| beyond)
}

/// The bytes up to a NUL.
fn string(content: &Content, offset: u64, beyond: Malformed) -> Result<Vec<u8>, Malformed> {
    let length = content
        .len()
        .checked_sub(offset)
        .ok_or(beyond)?
        .min(STRING_LIMIT as u64);
    let mut bytes = vec![0; length as usize];
    read_at(content, offset, &mut bytes)?;
    let end = memchr::memchr(0, &bytes).ok_or(beyond)?;
    bytes.truncate(end);
    Ok(bytes)
}

fn read_at(content: &Content, offset: u64, bytes: &mut [u8]) -> Result<(), Malformed> {
    content
        .read_exact_at(offset, bytes)
        .map_err(|_| "it is truncated")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::check::samples::Program;

    #[test]
    fn reads_loader_libraries_and_search_paths() {
        let program = Program {
            loader: Some("/lib64/ld.so"),
            needed: &["libc.so.6", "libm.so.6"],
            runpath: Some("$ORIGIN/../lib"),
            ..Program::default()
        };
        let elf = read(&Content::from_memory(program.bytes())).unwrap();
        assert_eq!(
            (elf.machine, elf.loader.as_deref(), elf.runpath.as_deref()),
            (
                ElfMachine::X86_64,
                Some(&b"/lib64/ld.so"[..]),
                Some(&b"$ORIGIN/../lib"[..])
            )
        );
        assert_eq!(elf.needed, [b"libc.so.6".to_vec(), b"libm.so.6".to_vec()]);
        let library = Program {
            soname: Some("libx.so.1"),
            rpath: Some("/opt"),
            ..Program::default()
        };
        let elf = read(&Content::from_memory(library.bytes())).unwrap();
        assert_eq!(
            (elf.soname.as_deref(), elf.rpath.as_deref(), elf.loader),
            (Some(&b"libx.so.1"[..]), Some(&b"/opt"[..]), None)
        );
        let arm = Program {
            machine: EM_AARCH64,
            ..Program::default()
        };
        assert_eq!(
            read(&Content::from_memory(arm.bytes())).unwrap().machine,
            ElfMachine::Other("64-bit Arm", EM_AARCH64)
        );
    }

    #[test]
    fn reads_the_libraries_of_a_real_program() {
        // This test program: its libraries, as the dynamic loader found them.
        let own = std::fs::read("/proc/self/exe").unwrap();
        let elf = read(&Content::from_memory(own)).unwrap();
        assert_eq!(elf.machine, ElfMachine::X86_64);
        let shell = read(&Content::from_memory(std::fs::read("/bin/sh").unwrap())).unwrap();
        assert_eq!(
            shell.loader.as_deref(),
            Some(&b"/lib64/ld-linux-x86-64.so.2"[..])
        );
        assert!(shell.needed.contains(&b"libc.so.6".to_vec()), "{shell:?}");
    }

    #[test]
    fn hostile_files_are_errors_and_never_a_panic() {
        let good = Program {
            loader: Some("/lib/ld"),
            needed: &["a", "b"],
            rpath: Some("/x"),
            ..Program::default()
        }
        .bytes();
        for end in 0..good.len() {
            let _ = read(&Content::from_memory(&good[..end]));
        }
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                let _ = read(&Content::from_memory(bytes));
            }
        }
        // 64-bit offsets that overflow.
        for at in (16..good.len() - 8).step_by(8) {
            let mut bytes = good.clone();
            bytes[at..at + 8].fill(0xff);
            let _ = read(&Content::from_memory(bytes));
        }
    }
}
