//! What clang's object file says of the guard: instructions, which of them need a field's place, a
//! map or a function, and the fields' names.
//!
//! Formats: the kernel's Documentation/bpf/btf.rst (.BTF, .BTF.ext) and llvm_reloc.rst. The
//! compiler is trusted; what is not expected is an error all the same, so that a newer clang can't
//! change the guard in silence.

use std::collections::BTreeMap;

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};

/// The whole guard.
pub struct Object {
    /// Fields of the kernel's structures, each once.
    pub fields: Vec<Field>,
    /// What programs call, in the order of their names.
    pub functions: Vec<Code>,
    /// One for each hook.
    pub programs: Vec<Code>,
}

/// A field of a structure: its name, and the names that lead to the field.
#[derive(PartialEq, Eq)]
pub struct Field {
    /// The structure.
    pub of: String,
    /// Members, the outermost first.
    pub path: Vec<String>,
}

/// A program or function. Positions are instructions, counted from 0.
pub struct Code {
    /// The hook's name, or the function's.
    pub name: String,
    /// struct bpf_insn, as numbers.
    pub instructions: Vec<u64>,
    /// Where a field's place goes, and which.
    pub fields: Vec<(u16, u16)>,
    /// Where a map goes (0 decisions, 1 counters, 2 events).
    pub maps: Vec<(u16, u16)>,
    /// Which function is called where.
    pub calls: Vec<(u16, u16)>,
}

const SIZE: usize = 8;
/// Relocations: a 64-bit address, and a call.
const R_BPF_64_64: u32 = 1;
const R_BPF_64_32: u32 = 10;
/// struct bpf_core_relo's `kind`: the place of a field, in bytes.
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
        let mut found = Found {
            types: &types,
            fields: Vec::new(),
            by_section: BTreeMap::new(),
        };
        found.read(section(".BTF.ext")?)?;
        let mut names: Vec<String> = file
            .sections()
            .filter_map(|s| Some(s.name().ok()?.strip_prefix("function/")?.to_owned()))
            .collect();
        names.sort();
        let mut object = Object {
            fields: Vec::new(),
            functions: Vec::new(),
            programs: Vec::new(),
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
                    .chunks_exact(SIZE)
                    .map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default()))
                    .collect(),
                fields: found.by_section.remove(name).unwrap_or_default(),
                maps: Vec::new(),
                calls: Vec::new(),
            };
            for (at, relocation) in section.relocations() {
                let at = u16::try_from(at / SIZE as u64).map_err(|e| e.to_string())?;
                let (RelocationTarget::Symbol(symbol), RelocationFlags::Elf { r_type }) =
                    (relocation.target(), relocation.flags())
                else {
                    return Err(format!("{name}: a relocation that is not of a symbol"));
                };
                let symbol = file.symbol_by_index(symbol).map_err(|e| e.to_string())?;
                let index = symbol
                    .section_index()
                    .ok_or_else(|| format!("{name}: {:?} is nowhere", symbol.name()))?;
                let target = file
                    .section_by_index(index)
                    .and_then(|s| s.name())
                    .map_err(|e| e.to_string())?;
                match (r_type, target) {
                    (R_BPF_64_64, ".rodata" | ".bss" | ".maps") => {
                        let map = [".rodata", ".bss", ".maps"]
                            .iter()
                            .position(|n| *n == target)
                            .unwrap_or_default();
                        // The place in the map's value: the second half of the instruction has it
                        // for the loader.
                        let first = usize::from(at);
                        let place = (code.instructions[first] >> 32) + symbol.address();
                        code.instructions[first] &= 0xffff_ffff;
                        code.instructions[first + 1] = place << 32;
                        code.maps.push((at, map as u16));
                    }
                    (R_BPF_64_32, _) => {
                        let called = target
                            .strip_prefix("function/")
                            .ok_or_else(|| format!("{name} calls {target}"))?;
                        let function = names.iter().position(|n| n == called).unwrap_or_default();
                        code.calls.push((at, function as u16));
                    }
                    _ => return Err(format!("{name}: relocation {r_type} to {target}")),
                }
            }
            list.push(code);
        }
        object.functions.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some((name, _)) = found
            .by_section
            .iter()
            .find(|(name, _)| name.starts_with("lsm/") || name.starts_with("function/"))
        {
            return Err(format!("fields of {name}, which is no section"));
        }
        object.fields = found.fields;
        Ok(object)
    }
}

/// The object's own types.
struct Types<'a> {
    strings: &'a [u8],
    /// Kind, name, the type it stands for, and members: name and type.
    all: Vec<Type>,
}

struct Type {
    kind: u32,
    name: u32,
    of: u32,
    members: Vec<(u32, u32)>,
}

fn number(bytes: &[u8], at: usize) -> Result<u32, String> {
    bytes
        .get(at..at + 4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .ok_or_else(|| "a truncated section".to_owned())
}

impl Types<'_> {
    fn read(bytes: &[u8]) -> Result<Types<'_>, String> {
        let header = number(bytes, 4)? as usize;
        let part = |at: usize| -> Result<&[u8], String> {
            let (start, length) = (
                header + number(bytes, at)? as usize,
                number(bytes, at + 4)? as usize,
            );
            bytes
                .get(start..start + length)
                .ok_or_else(|| "a truncated .BTF".to_owned())
        };
        let (types, strings) = (part(8)?, part(16)?);
        let mut all = vec![Type {
            kind: 0,
            name: 0,
            of: 0,
            members: Vec::new(),
        }];
        let mut at = 0;
        while at < types.len() {
            let (name, info, of) = (
                number(types, at)?,
                number(types, at + 4)?,
                number(types, at + 8)?,
            );
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            at += 12;
            let mut members = Vec::new();
            let each = match kind {
                4 | 5 => {
                    for member in 0..count {
                        members.push((
                            number(types, at + 12 * member)?,
                            number(types, at + 12 * member + 4)?,
                        ));
                    }
                    12
                }
                15 | 19 => 12,
                6 | 13 => 8,
                1 | 14 | 17 => 4 / count.max(1),
                3 => 12 / count.max(1),
                _ => 0,
            };
            at += match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                _ => each * count,
            };
            all.push(Type {
                kind,
                name,
                of,
                members,
            });
        }
        Ok(Types { strings, all })
    }

    fn string(&self, at: u32) -> String {
        let bytes = self.strings.get(at as usize..).unwrap_or_default();
        String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
    }

    /// The type behind typedefs, const and volatile.
    fn bare(&self, mut id: u32) -> Result<&Type, String> {
        for _ in 0..16 {
            let found = self
                .all
                .get(id as usize)
                .ok_or("a type that is not there")?;
            if !matches!(found.kind, 8..=11) {
                return Ok(found);
            }
            id = found.of;
        }
        Err("types without an end".to_owned())
    }

    /// What an access string (`0:1:0`) stands for.
    fn field(&self, id: u32, access: &str) -> Result<Field, String> {
        let mut at = self.bare(id)?;
        let of = self.string(at.name);
        let mut path = Vec::new();
        let mut steps = access
            .split(':')
            .map(|step| step.parse::<usize>().map_err(|e| e.to_string()));
        if steps.next() != Some(Ok(0)) {
            return Err(format!("access {access} to {of}"));
        }
        for step in steps {
            let (name, member) = *at
                .members
                .get(step?)
                .ok_or_else(|| format!("access {access} to {of}"))?;
            path.push(self.string(name));
            at = self.bare(member)?;
        }
        Ok(Field { of, path })
    }
}

struct Found<'a> {
    types: &'a Types<'a>,
    fields: Vec<Field>,
    by_section: BTreeMap<String, Vec<(u16, u16)>>,
}

impl Found<'_> {
    /// Reads .BTF.ext's field relocations.
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
                let insn = u16::try_from(offset as usize / SIZE).map_err(|e| e.to_string())?;
                self.by_section
                    .entry(section.clone())
                    .or_default()
                    .push((insn, index as u16));
            }
        }
        Ok(())
    }
}
