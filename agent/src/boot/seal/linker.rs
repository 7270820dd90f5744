//! Links the guard's programs for the running kernel: fills in the offsets of fields, the maps and
//! the calls of functions.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::kernel::instruction::{Instruction, Patch};

/// A field of a kernel structure that the guard reads.
pub struct Field {
    /// The structure's name.
    pub of: &'static str,
    /// Names of the members that lead to the field, the outermost first.
    pub path: &'static [&'static str],
}

/// A program or function as compiled.
pub struct Code {
    /// The name of the hook or of the function.
    pub name: &'static str,
    /// Its instructions, packed ([`Instruction::pack`]). Their patches have indexes in [`FIELDS`],
    /// [`Maps`] and [`FUNCTIONS`].
    packed: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/guard.rs"));

/// `src_reg` of an instruction that loads a map, or the address of an array map's value
/// (BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE of <linux/bpf.h>).
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;
/// Index of the ring of events among the maps: the others are arrays.
const EVENTS: usize = 2;

/// The maps: configuration, counters, events.
pub type Maps<'a> = [BorrowedFd<'a>; 3];

/// A function in the linked program: its index, and where it starts once it is placed.
struct Placed {
    function: u8,
    start: Option<usize>,
}

/// Appends all needed functions to a program, and fills in `offsets` (one for each of [`FIELDS`]),
/// maps and calls.
pub fn link(program: &Code, offsets: &[u32], maps: Maps) -> Vec<Instruction> {
    let mut out: Vec<Instruction> = Vec::new();
    let mut placed: Vec<Placed> = Vec::new();
    let mut calls: Vec<(usize, u8)> = Vec::new();
    append(program, offsets, maps, &mut out, &mut placed, &mut calls);
    // Functions that are called by functions come behind their callers.
    while let Some(next) = placed.iter_mut().find(|next| next.start.is_none()) {
        next.start = Some(out.len());
        if let Some(code) = FUNCTIONS.get(usize::from(next.function)) {
            append(code, offsets, maps, &mut out, &mut placed, &mut calls);
        }
    }
    for (at, function) in calls {
        let start = placed
            .iter()
            .find(|found| found.function == function)
            .and_then(|found| found.start)
            .unwrap_or_default();
        out[at].imm = (start as i64 - at as i64 - 1) as i32;
    }
    out
}

fn append(
    code: &Code,
    offsets: &[u32],
    maps: Maps,
    out: &mut Vec<Instruction>,
    placed: &mut Vec<Placed>,
    calls: &mut Vec<(usize, u8)>,
) {
    let mut packed = code.packed;
    while let Some((mut instruction, patch)) = Instruction::unpack(&mut packed) {
        match patch {
            Patch::None => {}
            Patch::Field(field) => {
                let offset = offsets.get(usize::from(field)).copied().unwrap_or(0);
                if instruction.accesses_memory() {
                    instruction.off = offset as i16;
                } else {
                    instruction.imm = offset.cast_signed();
                }
            }
            Patch::Map(map) => {
                let index = usize::from(map).min(EVENTS);
                instruction.set_src_reg(if index == EVENTS {
                    PSEUDO_MAP_FD
                } else {
                    PSEUDO_MAP_VALUE
                });
                instruction.imm = maps[index].as_raw_fd();
            }
            Patch::Call(function) => {
                calls.push((out.len(), function));
                if !placed.iter().any(|found| found.function == function) {
                    placed.push(Placed {
                        function,
                        start: None,
                    });
                }
            }
        }
        out.push(instruction);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::kernel::guard_abi::HOOKS;

    #[test]
    fn every_hook_has_a_counter_and_every_counter_a_hook() {
        let mut programs: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        let mut counters = HOOKS.to_vec();
        programs.sort_unstable();
        counters.sort_unstable();
        assert_eq!(programs, counters);
    }

    #[test]
    fn an_instruction_is_the_same_after_packing() {
        let numbers = [
            0, 1, -1, 0x7f, -0x80, 0x80, -0x81, 0x7fff, -0x8000, 0x8000, -0x8001,
        ];
        let patches = [
            Patch::None,
            Patch::Field(0),
            Patch::Map(2),
            Patch::Call(255),
        ];
        let mut packed = Vec::new();
        let all: Vec<(Instruction, Patch)> = numbers
            .iter()
            .chain(&[i32::MAX, i32::MIN])
            .zip(patches.into_iter().cycle())
            .map(|(imm, patch)| {
                let one = Instruction {
                    code: 0x85,
                    registers: 0x12,
                    off: *imm as i16,
                    imm: *imm,
                };
                (one, patch)
            })
            .collect();
        all.iter()
            .for_each(|(one, patch)| one.pack(*patch, &mut packed));
        let mut rest = packed.as_slice();
        let unpacked: Vec<(Instruction, Patch)> =
            std::iter::from_fn(|| Instruction::unpack(&mut rest)).collect();
        assert_eq!((unpacked, rest.len()), (all, 0));
    }

    #[test]
    fn calls_lead_to_the_functions_behind_the_program() {
        let null = File::open("/dev/null").unwrap();
        let offsets = vec![8; FIELDS.len()];
        for program in PROGRAMS {
            let linked = link(program, &offsets, [null.as_fd(); 3]);
            let mut packed = program.packed;
            let own = std::iter::from_fn(|| Instruction::unpack(&mut packed)).count();
            assert!(packed.is_empty() && own > 1);
            assert!(linked.len() >= own && linked.len() < 16_384);
            for (at, instruction) in linked.iter().enumerate() {
                if instruction.calls_function() {
                    let target = at as i64 + 1 + i64::from(instruction.imm);
                    assert!(
                        target >= own as i64 && target < linked.len() as i64,
                        "{}",
                        program.name
                    );
                }
            }
        }
    }
}
