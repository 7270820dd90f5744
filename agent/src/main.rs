//! The agent's program: PID 1 in the initramfs, an ordinary command in the running image.

mod boot;

fn main() {}
