//! The types of clang's object file (section .BTF).
//!
//! Format: the kernel's Documentation/bpf/btf.rst. The compiler is trusted; anything unexpected is
//! an error nevertheless, so that a newer clang cannot change the guard unnoticed.

use crate::object::Field;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;
/// typedef, volatile, const and restrict.
const MODIFIERS: std::ops::RangeInclusive<u32> = 8..=11;
/// Bytes of `struct btf_type`, and of each member of a structure.
const TYPE: usize = 12;
const MEMBER: usize = 12;

/// The object's types.
pub struct Types<'a> {
    strings: &'a [u8],
    all: Vec<Type>,
}

#[derive(Default)]
struct Type {
    kind: u32,
    name: u32,
    /// Bytes, or the number of the type that this one modifies.
    size_or_type: u32,
    members: Vec<Member>,
    /// Of an enumeration: name and value.
    values: Vec<(u32, i32)>,
    /// Of an array: element type and number of elements.
    array: (u32, u32),
}

struct Member {
    name: u32,
    of: u32,
    bits: u32,
}

/// A structure as the compiler laid it out.
pub struct Layout {
    /// Bytes.
    pub size: u32,
    /// Members in their order.
    pub fields: Vec<LayoutField>,
}

/// A member of a [`Layout`].
pub struct LayoutField {
    /// Its name.
    pub name: String,
    /// Bytes from the start of the structure.
    pub offset: u32,
    /// Its type.
    pub scalar: Scalar,
    /// Number of elements of an array.
    pub elements: Option<u32>,
}

/// The types that the guard's shared structures consist of.
#[derive(Clone, Copy)]
pub enum Scalar {
    /// `char`.
    Char,
    /// An integer of this many bytes, signed or not.
    Integer(u32, bool),
}

pub fn number(bytes: &[u8], at: usize) -> Result<u32, String> {
    bytes
        .get(at..at + 4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .ok_or_else(|| "a truncated section".to_owned())
}

impl Types<'_> {
    pub fn read(bytes: &[u8]) -> Result<Types<'_>, String> {
        let header = number(bytes, 4)? as usize;
        let part = |at: usize| -> Result<&[u8], String> {
            let start = header + number(bytes, at)? as usize;
            let length = number(bytes, at + 4)? as usize;
            bytes
                .get(start..start + length)
                .ok_or_else(|| "a truncated .BTF".to_owned())
        };
        let (types, strings) = (part(8)?, part(16)?);
        // Type 0 is void.
        let mut all = vec![Type::default()];
        let mut at = 0;
        while at < types.len() {
            let info = number(types, at + 4)?;
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let mut found = Type {
                kind,
                name: number(types, at)?,
                size_or_type: number(types, at + 8)?,
                ..Type::default()
            };
            at += TYPE;
            for index in 0..count {
                match kind {
                    STRUCT | UNION => {
                        let at = at + MEMBER * index;
                        found.members.push(Member {
                            name: number(types, at)?,
                            of: number(types, at + 4)?,
                            bits: number(types, at + 8)?,
                        });
                    }
                    ENUM => {
                        let at = at + 8 * index;
                        let value = number(types, at + 4)?.cast_signed();
                        found.values.push((number(types, at)?, value));
                    }
                    _ => {}
                }
            }
            if kind == ARRAY {
                found.array = (number(types, at)?, number(types, at + 8)?);
            }
            at += match kind {
                STRUCT | UNION | DATASEC | ENUM64 => MEMBER * count,
                ENUM | FUNC_PROTO => 8 * count,
                INT | VAR | DECL_TAG => 4,
                ARRAY => 12,
                _ => 0,
            };
            all.push(found);
        }
        Ok(Types { strings, all })
    }

    pub fn string(&self, at: u32) -> String {
        let bytes = self.strings.get(at as usize..).unwrap_or_default();
        String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
    }

    /// The type behind typedefs, const and volatile.
    fn resolve(&self, mut id: u32) -> Result<&Type, String> {
        for _ in 0..16 {
            let found = self
                .all
                .get(id as usize)
                .ok_or("a reference to a missing type")?;
            if !MODIFIERS.contains(&found.kind) {
                return Ok(found);
            }
            id = found.size_or_type;
        }
        Err("a chain of more than 16 type modifiers".to_owned())
    }

    /// The field that an access string of a CO-RE relocation (`0:1:0`) selects.
    pub fn field(&self, id: u32, access: &str) -> Result<Field, String> {
        let mut at = self.resolve(id)?;
        let of = self.string(at.name);
        let mut path = Vec::new();
        let mut steps = access
            .split(':')
            .map(|step| step.parse::<usize>().map_err(|e| e.to_string()));
        if steps.next() != Some(Ok(0)) {
            return Err(format!("access {access} to {of}"));
        }
        for step in steps {
            let member = at
                .members
                .get(step?)
                .ok_or_else(|| format!("access {access} to {of}"))?;
            path.push(self.string(member.name));
            at = self.resolve(member.of)?;
        }
        Ok(Field { of, path })
    }

    fn named(&self, kind: u32, name: &str) -> Result<&Type, String> {
        self.all
            .iter()
            .find(|found| found.kind == kind && self.string(found.name) == name)
            .ok_or_else(|| {
                format!("{name} is not among the object's types: no program or map refers to it")
            })
    }

    /// The layout of a structure.
    pub fn layout(&self, name: &str) -> Result<Layout, String> {
        let found = self.named(STRUCT, name)?;
        let mut fields = Vec::new();
        for member in &found.members {
            let field = self.string(member.name);
            let mut of = self.resolve(member.of)?;
            let mut elements = None;
            if of.kind == ARRAY {
                elements = Some(of.array.1);
                of = self.resolve(of.array.0)?;
            }
            let scalar = match (of.kind, self.string(of.name).as_str()) {
                (INT, "char") => Scalar::Char,
                (INT, text) => Scalar::Integer(of.size_or_type, !text.contains("unsigned")),
                (ENUM, _) => Scalar::Integer(of.size_or_type, false),
                (PTR, _) => return Err(format!("{name}.{field} is a pointer")),
                (kind, _) => return Err(format!("{name}.{field} has a type of kind {kind}")),
            };
            if member.bits % 8 != 0 {
                return Err(format!("{name}.{field} is a bit field"));
            }
            fields.push(LayoutField {
                name: field,
                offset: member.bits / 8,
                scalar,
                elements,
            });
        }
        Ok(Layout {
            size: found.size_or_type,
            fields,
        })
    }

    /// The names and values of an enumeration.
    pub fn enumeration(&self, name: &str) -> Result<Vec<(String, i32)>, String> {
        let found = self.named(ENUM, name)?;
        Ok(found
            .values
            .iter()
            .map(|(name, value)| (self.string(*name), *value))
            .collect())
    }
}
