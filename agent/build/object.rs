//! Reads clang's object file of the guard: instructions, and the positions in them that need the
//! offset of a kernel's field, a map or a function.
//!
//! Formats: the kernel's Documentation/bpf/btf.rst (.BTF.ext) and llvm_reloc.rst. The compiler is
//! trusted; anything unexpected is an error nevertheless, so that a newer clang cannot change the
//! guard unnoticed.

use std::collections::BTreeMap;

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};

use crate::abi;
use crate::btf::{Types, number};
use crate::instruction::Instruction;

/// The compiled guard.
pub struct Object {
    /// Fields of the kernel's structures that the guard reads, each once.
    pub fields: Vec<Field>,
    /// Functions that programs call, sorted by name.
    pub functions: Vec<Code>,
    /// One program for each hook.
    pub programs: Vec<Code>,
    /// Rust definitions of the data shared with the agent.
    pub abi: String,
}

/// A field of a kernel structure.
#[derive(PartialEq, Eq)]
pub struct Field {
    /// The structure's name.
    pub of: String,
    /// Names of the members that lead to the field, the outermost first.
    pub path: Vec<String>,
}

/// A program or function. Positions are indexes of instructions.
pub struct Code {
    /// The name of the hook or of the function.
    pub name: String,
    /// Its instructions.
    pub instructions: Vec<Instruction>,
    /// Positions that need a field's offset, and the index of the field.
    pub fields: Vec<(u16, u16)>,
    /// Positions that need a map, and its index in [`MAPS`].
    pub maps: Vec<(u16, u16)>,
    /// Positions that call a function, and the index of the function.
    pub calls: Vec<(u16, u16)>,
}

/// The section that becomes each map: configuration, counters, events.
const MAPS: [&str; 3] = [".rodata", ".bss", ".maps"];
/// Relocations: a 64-bit address, and a call.
const R_BPF_64_64: u32 = 1;
const R_BPF_64_32: u32 = 10;
/// `kind` of struct bpf_core_relo: the offset of a field in bytes.
const FIELD_BYTE_OFFSET: u32 = 0;

impl Object {
    /// Reads an object file.
    pub fn read(bytes: &[u8]) -> Result<Object, String> {
        let file: ElfFile64 = ElfFile64::parse(bytes).map_err(|e| e.to_string())?;
        let section = |name: &str| {
            file.section_by_name(name)
                .and_then(|s| s.data().ok())
                .ok_or_else(|| format!("no section {name}"))
        };
        let types = Types::read(section(".BTF")?)?;
        // The agent writes the whole section: it must hold the configuration and nothing else.
        let constants = section(MAPS[0])?.len();
        if constants != types.layout(abi::CONFIG)?.size as usize {
            return Err(format!(
                "{} has {constants} bytes and therefore holds more than struct {}",
                MAPS[0],
                abi::CONFIG
            ));
        }
        let mut relocations = FieldRelocations {
            types: &types,
            fields: Vec::new(),
            by_section: BTreeMap::new(),
        };
        relocations.read(section(".BTF.ext")?)?;
        let mut names: Vec<String> = file
            .sections()
            .filter_map(|s| Some(s.name().ok()?.strip_prefix("function/")?.to_owned()))
            .collect();
        names.sort();
        let mut object = Object {
            fields: Vec::new(),
            functions: Vec::new(),
            programs: Vec::new(),
            abi: abi::definitions(&types)?,
        };
        for section in file.sections() {
            let Ok(name) = section.name() else { continue };
            let (list, short) = match name.split_once('/') {
                Some(("lsm", short)) => (&mut object.programs, short),
                Some(("function", short)) => (&mut object.functions, short),
                _ => continue,
            };
            let data = section.data().map_err(|e| e.to_string())?;
            let mut code = Code {
                name: short.to_owned(),
                instructions: data
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| Instruction::from_bytes(*bytes))
                    .collect(),
                fields: relocations.by_section.remove(name).unwrap_or_default(),
                maps: Vec::new(),
                calls: Vec::new(),
            };
            for (at, relocation) in section.relocations() {
                let at = u16::try_from(at / Instruction::SIZE as u64).map_err(|e| e.to_string())?;
                let (RelocationTarget::Symbol(symbol), RelocationFlags::Elf { r_type }) =
                    (relocation.target(), relocation.flags())
                else {
                    return Err(format!("{name}: a relocation without a symbol"));
                };
                let symbol = file.symbol_by_index(symbol).map_err(|e| e.to_string())?;
                let index = symbol
                    .section_index()
                    .ok_or_else(|| format!("{name}: {:?} is undefined", symbol.name()))?;
                let target = file
                    .section_by_index(index)
                    .and_then(|s| s.name())
                    .map_err(|e| e.to_string())?;
                let map = MAPS.iter().position(|name| *name == target);
                match (r_type, map) {
                    (R_BPF_64_64, Some(map)) => code.refer_to_map(at, map, symbol.address())?,
                    (R_BPF_64_32, _) => {
                        let function = target
                            .strip_prefix("function/")
                            .and_then(|called| names.iter().position(|n| n == called))
                            .ok_or_else(|| format!("{name} calls {target}"))?;
                        code.calls.push((at, function as u16));
                    }
                    _ => return Err(format!("{name}: relocation {r_type} to {target}")),
                }
            }
            list.push(code);
        }
        object.functions.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some((name, _)) = relocations
            .by_section
            .iter()
            .find(|(name, _)| name.starts_with("lsm/") || name.starts_with("function/"))
        {
            return Err(format!("field relocations of {name}, a missing section"));
        }
        object.fields = relocations.fields;
        Ok(object)
    }
}

impl Code {
    /// Notes a map at a pair of instructions that load a 64-bit constant. The kernel expects the
    /// offset in the map's value in the second instruction.
    fn refer_to_map(&mut self, at: u16, map: usize, address: u64) -> Result<(), String> {
        let start = usize::from(at);
        let Some([first, second]) = self.instructions.get_mut(start..start + 2) else {
            return Err(format!("{}: a map at the last instruction", self.name));
        };
        let address = i32::try_from(address).map_err(|e| e.to_string())?;
        second.imm = first.imm + address;
        first.imm = 0;
        self.maps.push((at, map as u16));
        Ok(())
    }
}

/// The relocations of fields, by section.
struct FieldRelocations<'a> {
    types: &'a Types<'a>,
    fields: Vec<Field>,
    by_section: BTreeMap<String, Vec<(u16, u16)>>,
}

impl FieldRelocations<'_> {
    /// Reads them from .BTF.ext.
    fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
        let header = number(bytes, 4)? as usize;
        let (start, length) = (
            header + number(bytes, 24)? as usize,
            number(bytes, 28)? as usize,
        );
        let bytes = bytes
            .get(start..start + length)
            .ok_or("a truncated .BTF.ext")?;
        let size = number(bytes, 0)? as usize;
        let mut at = 4;
        while at < bytes.len() {
            let (section, count) = (
                self.types.string(number(bytes, at)?),
                number(bytes, at + 4)?,
            );
            at += 8;
            for _ in 0..count {
                let (offset, id, access, kind) = (
                    number(bytes, at)?,
                    number(bytes, at + 4)?,
                    number(bytes, at + 8)?,
                    number(bytes, at + 12)?,
                );
                at += size;
                if kind != FIELD_BYTE_OFFSET {
                    return Err(format!("{section}: a relocation of kind {kind}"));
                }
                let field = self.types.field(id, &self.types.string(access))?;
                let index = self
                    .fields
                    .iter()
                    .position(|known| *known == field)
                    .unwrap_or_else(|| {
                        self.fields.push(field);
                        self.fields.len() - 1
                    });
                let position = u16::try_from(offset as usize / Instruction::SIZE)
                    .map_err(|e| e.to_string())?;
                self.by_section
                    .entry(section.clone())
                    .or_default()
                    .push((position, index as u16));
            }
        }
        Ok(())
    }
}
