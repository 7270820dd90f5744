//! Fixed places and names that builder and agent agree on.

/// The policy, inside the verified image and authenticated by being there.
pub const POLICY_PATH: &str = "/usr/lib/adamant/policy.json";
/// The agent as an ordinary program inside the image.
pub const AGENT_PATH: &str = "/usr/bin/adamant-agent";
/// In the initramfs: one module a line, each after those it needs: its absolute path, then the
/// names of those, and with a `~` the names of those that it only comes after, all separated by
/// spaces. Then, for one that is not for each machine, ` |`, and patterns (`*`, `?`, `[...]`) of
/// the names (modalias) of devices that it is for; without one, it is only there for others that
/// need it.
pub const MODULE_LIST_PATH: &str = "/usr/lib/adamant/modules";
/// In the initramfs: marks it as one (systemd's INITRD_INTERFACE).
pub const INITRD_RELEASE_PATH: &str = "/etc/initrd-release";
/// In the initramfs: certificates (`*.crt`, PEM) that root hashes are signed by, as systemd has it.
pub const CERTIFICATES: &str = "/etc/verity.d";
/// In the initramfs: whether the root hash must be signed, see `signature::Rule`. It can't be in
/// the policy: that is read after verity is set up.
pub const SIGNATURE_RULE_PATH: &str = "/usr/lib/adamant/signature";
/// In the initramfs: the command lines that the image was built with, one a line, without
/// `roothash=`.
pub const COMMAND_LINES_PATH: &str = "/usr/lib/adamant/cmdline";
/// What the agent found and did, written just before handover.
pub const BOOT_REPORT_PATH: &str = "/run/adamant/boot.json";
/// The device-mapper name of the verified root, as systemd calls it: /dev/mapper/root.
pub const ROOT_MAPPING: &str = "root";
/// Where the verified root is mounted in the initramfs.
pub const SYSROOT: &str = "/sysroot";
/// The folder below a state volume's root that holds what makes this server itself (machine-id).
pub const IDENTITY_DIR: &str = ".adamant";
/// Paths where the agent looks for init, in order, if the kernel command line names none.
pub const INITS: [&str; 5] = [
    "/sbin/init",
    "/usr/lib/systemd/systemd",
    "/etc/init",
    "/bin/init",
    "/init",
];
/// Largest policy accepted, in bytes.
pub const POLICY_LIMIT: usize = 64 * 1024;
