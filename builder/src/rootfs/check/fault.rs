//! Why a program of the image cannot be started, with a remedy.

use std::fmt;

use super::PATH;

/// Why a program cannot be started. Paths are absolute paths of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The path does not exist.
    Missing,
    /// A dangling symbolic link in the path: the link and its target.
    Dangling(String, String),
    /// The path has a symbolic link loop, or more links than the kernel follows.
    LinkLoop,
    /// A directory, a device or a socket.
    NotAFile,
    /// The file is not executable.
    NotExecutable,
    /// It is below this mount point of a volume, which is mounted noexec.
    OnVolume(String),
    /// It is below this directory, where another file system is mounted first.
    Hidden(String),
    /// The file is empty.
    Empty,
    /// It is neither an ELF file nor a script.
    NoProgram,
    /// A truncated or invalid ELF file.
    Malformed(&'static str),
    /// An ELF file for another processor.
    OtherMachine(String),
    /// A script with Windows line ends; its interpreter.
    CarriageReturn(String),
    /// A script with a byte order mark.
    ByteOrderMark,
    /// A script with `#!` and a missing or too long interpreter.
    NoInterpreter,
    /// A script whose interpreter cannot be started.
    Interpreter(String, Box<Fault>),
    /// A script whose program for `env` is in no directory of PATH.
    EnvProgram(String),
    /// Too many nested interpreters.
    TooDeep,
    /// An ELF file whose dynamic loader cannot be started.
    Loader(String, Box<Fault>),
    /// A library that the dynamic loader does not find.
    Library(MissingLibrary),
    /// A library that exists but cannot be used.
    UnusableLibrary(String, Box<Fault>),
}

/// A missing library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingLibrary {
    /// Its name in the requiring object.
    pub name: String,
    /// The library that requires it; `None` for the program itself.
    pub needed_by: Option<String>,
    /// A file of that name outside of the loader's search path.
    pub elsewhere: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("it is not in the image"),
            Fault::Dangling(link, target) => write!(
                f,
                "the symbolic link {link} leads to {target}, which is not in the image"
            ),
            Fault::LinkLoop => f.write_str("its path is a symbolic link loop"),
            Fault::NotAFile => f.write_str("it is not a file"),
            Fault::NotExecutable => f.write_str("it is not executable"),
            Fault::OnVolume(mount) => write!(
                f,
                "it lies on the volume at {mount}, which is mounted noexec"
            ),
            Fault::Hidden(mount) => write!(f, "another file system is mounted over it at {mount}"),
            Fault::Empty => f.write_str("it is empty"),
            Fault::NoProgram => f.write_str("it is neither an ELF program nor a script with #!"),
            Fault::Malformed(why) => write!(f, "it is a damaged ELF program: {why}"),
            Fault::OtherMachine(machine) => write!(
                f,
                "it is a program for another processor ({machine}), and the image is for x86-64"
            ),
            Fault::CarriageReturn(interpreter) => {
                write!(
                    f,
                    "its lines end with CR LF, so the kernel looks for an interpreter \"{interpreter}\\r\", which does not exist"
                )
            }
            Fault::ByteOrderMark => {
                f.write_str("it starts with a UTF-8 byte order mark, so the kernel does not see #!")
            }
            Fault::NoInterpreter => {
                f.write_str("its #! line names no interpreter that the kernel can read")
            }
            Fault::Interpreter(path, fault) => chained(f, "interpreter", path, fault),
            Fault::EnvProgram(name) => write!(
                f,
                "its #! line asks env for {name}, which is in none of {}",
                PATH.join(", ")
            ),
            Fault::TooDeep => {
                f.write_str("its interpreter is a script whose interpreter is a script, nested deeper than the kernel allows")
            }
            Fault::Loader(path, fault) => chained(f, "dynamic loader", path, fault),
            Fault::UnusableLibrary(path, fault) => chained(f, "library", path, fault),
            Fault::Library(MissingLibrary {
                name,
                needed_by,
                elsewhere,
            }) => {
                write!(f, "the library {name}")?;
                if let Some(by) = needed_by {
                    write!(f, ", which {by} needs,")?;
                }
                match elsewhere {
                    Some(path) => write!(
                        f,
                        " is not found: the dynamic loader does not search {path}"
                    ),
                    None => f.write_str(" is not in the image"),
                }
            }
        }
    }
}

/// A clause about the fault of a required program, for the message of the requiring one.
fn chained(f: &mut fmt::Formatter<'_>, what: &str, path: &str, fault: &Fault) -> fmt::Result {
    match fault {
        Fault::Missing => write!(f, "its {what} {path} is not in the image"),
        Fault::NotExecutable => write!(f, "its {what} {path} is not executable"),
        fault => write!(f, "its {what} {path} cannot run: {fault}"),
    }
}

impl Fault {
    /// The remedy for the program at `path`.
    pub fn remedy(&self, path: &str) -> String {
        match self {
            Fault::NotExecutable => format!("give it an executable mode: [[file]] path = {path:?}, copy = \"...\", mode = \"0755\""),
            Fault::OnVolume(_) => "put it below /usr; or name the volume in [seal.allow] execute".to_owned(),
            Fault::Hidden(_) => "put it below /usr".to_owned(),
            Fault::CarriageReturn(_) => "save the script with LF line ends (dos2unix, or a .gitattributes line with eol=lf)".to_owned(),
            Fault::ByteOrderMark => "save the script as UTF-8 without a byte order mark".to_owned(),
            Fault::Interpreter(interpreter, fault) | Fault::Loader(interpreter, fault) | Fault::UnusableLibrary(interpreter, fault) => match &**fault {
                Fault::Missing | Fault::Dangling(..) if matches!(self, Fault::Loader(..)) => {
                    format!("add the C library that {path} was linked against, with {interpreter}, or link the program statically")
                }
                Fault::Missing | Fault::Dangling(..) => format!("add the package that brings {interpreter}, or name another interpreter in the first line"),
                fault => fault.remedy(interpreter),
            },
            Fault::EnvProgram(name) => format!("add the package that brings {name}"),
            Fault::Library(missing) => match &missing.elsewhere {
                Some(_) => "run ldconfig when the source is made, so that /etc/ld.so.cache lists it; or put the library into /usr/lib".to_owned(),
                None => "add the package that brings the library".to_owned(),
            },
            Fault::OtherMachine(_) => "use the program that was built for x86-64 (amd64)".to_owned(),
            Fault::LinkLoop | Fault::Dangling(..) => "give the link a target that is in the image".to_owned(),
            Fault::Missing => format!("add the package that brings {path}"),
            Fault::NotAFile | Fault::Empty | Fault::NoProgram | Fault::Malformed(_) | Fault::NoInterpreter | Fault::TooDeep => {
                format!("put a program there: [[file]] path = {path:?}, copy = \"...\", mode = \"0755\"")
            }
        }
    }
}
