//! What is made before the agent is compiled: the guard, from C, and the linker's flags.

mod guard;
mod object;
mod small;

fn main() {
    println!("cargo:rerun-if-changed=build");
    small::link();
    if let Err(why) = guard::build() {
        println!("cargo:error=the guard (agent/bpf/guard.bpf.c): {why}");
        std::process::exit(1);
    }
}
