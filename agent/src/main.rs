//! The agent's program: PID 1 in the initramfs, an ordinary command in the running image.

fn main() {}
