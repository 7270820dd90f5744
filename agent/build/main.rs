//! Compiles the guard (agent/bpf) and sets the linker's flags.

mod abi;
mod btf;
mod guard;
#[path = "../src/kernel/instruction.rs"]
#[allow(dead_code)]
mod instruction;
mod object;
mod small;

fn main() {
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=src/kernel/instruction.rs");
    small::print_linker_flags();
    if let Err(why) = guard::build() {
        println!("cargo:error=the guard (agent/bpf/guard.bpf.c): {why}");
        std::process::exit(1);
    }
}
