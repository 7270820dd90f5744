//! BPF instructions: `struct bpf_insn` of <linux/bpf.h>, with the kernel's field names.
//!
//! The build script uses this file, too (build/main.rs), so it depends on nothing else.

/// One instruction. Loading a 64-bit constant takes two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// `dst_reg` in the lower four bits, `src_reg` in the upper ones.
    pub registers: u8,
    /// Signed offset of loads, stores and jumps.
    pub off: i16,
    /// Signed constant.
    pub imm: i32,
}

/// What an instruction needs before the kernel can load it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// Nothing.
    None,
    /// The offset of the field with this index.
    Field(u8),
    /// The map with this index.
    Map(u8),
    /// The position of the function with this index.
    Call(u8),
}

/// The classes of instructions, the lower three bits of `code`, that have an address as their
/// operand: BPF_LDX, BPF_ST and BPF_STX.
const MEMORY_CLASSES: std::ops::RangeInclusive<u8> = 1..=3;
/// BPF_JMP | BPF_CALL.
const CALL: u8 = 0x85;
/// `src_reg` of a call: the target is a function of this program (BPF_PSEUDO_CALL).
const PSEUDO_CALL: u8 = 1;

impl Instruction {
    /// Bytes of an instruction.
    pub const SIZE: usize = size_of::<Instruction>();

    /// Decodes an instruction of an object file for little-endian machines.
    pub fn from_bytes(bytes: [u8; Instruction::SIZE]) -> Instruction {
        let [code, registers, off @ .., a, b, c, d] = bytes;
        Instruction {
            code,
            registers,
            off: i16::from_le_bytes(off),
            imm: i32::from_le_bytes([a, b, c, d]),
        }
    }

    /// Appends the packed form, half as long as the kernel's: `code`, `registers`, one byte with
    /// the length of `off` (bits 0 and 1), the kind of the patch (bits 2 and 3) and the length of
    /// `imm` (bits 4 to 6), the patch's index, then `off` and `imm`, little endian. `off` has 0 or
    /// 2 bytes, and `imm` as few as hold the number: 0, 1, 2 or 4.
    pub fn pack(self, patch: Patch, to: &mut Vec<u8>) {
        let (off, imm) = (self.off.to_le_bytes(), self.imm.to_le_bytes());
        let off_length = if self.off == 0 { 0 } else { off.len() };
        let imm_length = match self.imm {
            0 => 0,
            -0x80..=0x7f => 1,
            -0x8000..=0x7fff => 2,
            _ => imm.len(),
        };
        let (kind, index) = match patch {
            Patch::None => (0, None),
            Patch::Field(index) => (1, Some(index)),
            Patch::Map(index) => (2, Some(index)),
            Patch::Call(index) => (3, Some(index)),
        };
        to.extend([
            self.code,
            self.registers,
            (off_length | kind << 2 | imm_length << 4) as u8,
        ]);
        to.extend(index);
        to.extend(&off[..off_length]);
        to.extend(&imm[..imm_length]);
    }

    /// Takes the next instruction from packed ones, with its patch. `None`: at their end.
    pub fn unpack(from: &mut &[u8]) -> Option<(Instruction, Patch)> {
        let (&[code, registers, lengths], mut rest) = from.split_first_chunk()?;
        let patch = match lengths >> 2 & 3 {
            0 => Patch::None,
            kind => {
                let (&index, behind) = rest.split_first()?;
                rest = behind;
                match kind {
                    1 => Patch::Field(index),
                    2 => Patch::Map(index),
                    _ => Patch::Call(index),
                }
            }
        };
        let (off, rest) = rest.split_at_checked(usize::from(lengths & 3))?;
        let (imm, rest) = rest.split_at_checked(usize::from(lengths >> 4))?;
        *from = rest;
        let instruction = Instruction {
            code,
            registers,
            off: extend_sign(off) as i16,
            imm: extend_sign(imm),
        };
        Some((instruction, patch))
    }

    /// Whether it loads from memory or stores to it: the offset of a field goes into `off`, and
    /// otherwise into `imm`.
    pub fn accesses_memory(self) -> bool {
        MEMORY_CLASSES.contains(&(self.code & 7))
    }

    /// Whether it calls a function of its own program: `imm` is then the distance in instructions.
    pub fn calls_function(self) -> bool {
        self.code == CALL && self.registers >> 4 == PSEUDO_CALL
    }

    /// Sets `src_reg`.
    pub fn set_src_reg(&mut self, register: u8) {
        self.registers = self.registers & 0x0f | register << 4;
    }
}

/// The number of these bytes, little endian; 0 without any.
fn extend_sign(bytes: &[u8]) -> i32 {
    let highest = bytes.last().map_or(0, |last| i32::from(last.cast_signed()));
    bytes
        .iter()
        .rev()
        .skip(1)
        .fold(highest, |number, byte| number << 8 | i32::from(*byte))
}
