//! The guard's names, for whoever reads its maps: the builder's documentation, and the running
//! agent.

/// Its counters: an array with one `u64` for each of [`HOOKS`].
pub const DENIALS: &str = "adamant_denials";
/// Its events: a ring buffer of `struct event` (agent/bpf/guard.bpf.c).
pub const EVENTS: &str = "adamant_events";
/// Bytes of an event: time, nanoseconds since the kernel started (u64); pid, uid, hook, device (u32
/// each); inode (u64); comm (16), the parent's comm (24) and the name of what was refused (40),
/// each ended by a NUL.
pub const EVENT_BYTES: usize = 112;
/// The hooks, in the order of the counters; as `enum hook` in agent/bpf/guard.bpf.c.
pub const HOOKS: [&str; 39] = [
    "bprm_check_security",
    "mmap_file",
    "mmap_addr",
    "file_mprotect",
    "sb_mount",
    "sb_remount",
    "move_mount",
    "sb_pivotroot",
    "sb_umount",
    "sb_kern_mount",
    "file_open",
    "inode_create",
    "inode_mknod",
    "inode_mkdir",
    "inode_symlink",
    "inode_link",
    "inode_unlink",
    "inode_rmdir",
    "inode_rename",
    "path_truncate",
    "file_ioctl",
    "file_ioctl_compat",
    "uring_cmd",
    "kernel_read_file",
    "kernel_load_data",
    "settime",
    "ptrace_access_check",
    "ptrace_traceme",
    "task_kill",
    "task_setrlimit",
    "task_prctl",
    "capable",
    "perf_event_open",
    "bpf",
    "bpf_map",
    "bpf_prog",
    "kernel_module_request",
    "netlink_send",
    "task_alloc",
];
