//! A difference between the running machine and its image or policy.

use serde::Serialize;

/// The subject of a finding or violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The mounts of PID 1.
    Mounts,
    /// Kernel settings below /proc/sys, lockdown and taint.
    Sysctls,
    /// The verified root and its devices.
    Verity,
    /// Block devices that appeared after the boot.
    Devices,
    /// Operations that the guard refused.
    Denials,
    /// The root hash on the kernel command line and in the boot report.
    Cmdline,
    /// Units and udev rules made since the boot.
    Units,
    /// Programs on volumes.
    Executables,
    /// Files on volumes that make programs run commands at start.
    Instructions,
    /// Open network ports.
    Sockets,
    /// The agent's own services.
    Services,
    /// The guard itself.
    Guard,
}

impl Class {
    /// The name in output.
    pub fn name(self) -> &'static str {
        match self {
            Class::Mounts => "mounts",
            Class::Sysctls => "sysctls",
            Class::Verity => "verity",
            Class::Devices => "devices",
            Class::Denials => "denials",
            Class::Cmdline => "cmdline",
            Class::Units => "units",
            Class::Executables => "executables",
            Class::Instructions => "instructions",
            Class::Sockets => "sockets",
            Class::Services => "services",
            Class::Guard => "guard",
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The subject.
    pub class: Class,
    /// The object that differs.
    #[serde(flatten)]
    pub difference: Difference,
}

/// An object, its actual state and its expected state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The object, for example a mount point.
    #[serde(rename = "what")]
    pub object: String,
    /// Its actual state.
    #[serde(rename = "is")]
    pub actual: String,
    /// Its expected state.
    #[serde(rename = "should")]
    pub expected: String,
}

impl Finding {
    /// A finding of a class.
    pub fn new(class: Class, object: &str, actual: &str, expected: &str) -> Finding {
        Finding {
            class,
            difference: Difference {
                object: object.to_owned(),
                actual: actual.to_owned(),
                expected: expected.to_owned(),
            },
        }
    }

    /// The line for people.
    pub fn line(&self) -> String {
        let Difference {
            object,
            actual,
            expected,
        } = &self.difference;
        [
            self.class.name(),
            ": ",
            object,
            ": is ",
            actual,
            ", should be ",
            expected,
        ]
        .concat()
    }
}
