//! Fixed paths and names that builder and agent agree on.

/// The policy, inside the verified image and authenticated by it.
pub const POLICY_PATH: &str = "/usr/lib/adamant/policy.json";
/// The agent as an ordinary program inside the image.
pub const AGENT_PATH: &str = "/usr/bin/adamant-agent";
/// In the initramfs: the module list, one module a line, each after the modules that it depends on.
/// A line has the absolute path, the names of its dependencies, and, with a `~`, the names of
/// modules that it only has to follow, all separated by spaces. A module for certain devices then
/// has ` |` and patterns (`*`, `?`, `[...]`) of their modaliases; without any pattern after it, the
/// module is only loaded as a dependency. A line without ` |` is a module for every machine.
pub const MODULE_LIST_PATH: &str = "/usr/lib/adamant/modules";
/// In the initramfs: marks it as an initramfs (systemd's INITRD_INTERFACE).
pub const INITRD_RELEASE_PATH: &str = "/etc/initrd-release";
/// In the initramfs: certificates (`*.crt`, PEM) of the signers of root hashes, in systemd's
/// directory for them.
pub const CERTIFICATES: &str = "/etc/verity.d";
/// In the initramfs: the signature rule, see `signature::Rule`. The policy can't contain it,
/// because the policy is read after verity is set up.
pub const SIGNATURE_RULE_PATH: &str = "/usr/lib/adamant/signature";
/// In the initramfs: the command lines that the image was built with, one a line, without
/// `roothash=`.
pub const COMMAND_LINES_PATH: &str = "/usr/lib/adamant/cmdline";
/// The boot report, written just before handover.
pub const BOOT_REPORT_PATH: &str = "/run/adamant/boot.json";
/// The device-mapper name of the verified root, as systemd calls it: /dev/mapper/root.
pub const ROOT_MAPPING: &str = "root";
/// Where the verified root is mounted in the initramfs.
pub const SYSROOT: &str = "/sysroot";
/// The directory in the state volume's root with the server's identity (machine-id).
pub const IDENTITY_DIR: &str = ".adamant";
/// The directory of the agent's state in the running machine. On a volume, it outlives a reboot.
pub const AGENT_STATE_DIR: &str = "/var/lib/adamant";
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
