//! The circumstances of the second build: whatever may differ between two machines does, as far as
//! one machine can make it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, Uid};

use super::super::{Options, agent};
use super::scratch::Scratch;
use crate::definition::{Definition, Origin};
use crate::error::{Context, Error, Result};

/// User and group `nobody` (Debian Policy, 9.2.2).
const NOBODY: u32 = 65534;
const ZONE: &str = "Pacific/Kiritimati";
const LOCALE: &str = "tr_TR.UTF-8";
const HOST: &str = "elsewhere";

/// What is different.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere {
    /// The only core it may use, where this program may use others too.
    core: Option<usize>,
    /// Threads.
    jobs: usize,
    /// Whether it is another user's.
    nobody: bool,
    /// Whether the machine has another name for it.
    named: bool,
}

/// Whether this user may make a UTS namespace. Tried in a thread of its own, which alone is in it
/// then.
fn may_name() -> bool {
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWUTS).is_ok())
        .join()
        .unwrap_or(false)
}

impl Elsewhere {
    /// As different as can be. Another user needs root, and sources that do without: mmdebstrap
    /// takes root, or sub-ids that nobody has.
    pub fn from(definition: &Definition, options: &Options) -> Elsewhere {
        let allowed = sched_getaffinity(Pid::from_raw(0)).ok();
        let cores: Vec<usize> = (0..CpuSet::count())
            .filter(|core| allowed.is_some_and(|set| set.is_set(*core).unwrap_or(false)))
            .collect();
        let nobody = Uid::effective().is_root()
            && !definition
                .sources
                .iter()
                .any(|source| matches!(source.origin, Origin::Debian(_)));
        Elsewhere {
            core: cores.last().copied().filter(|_| cores.len() > 1),
            jobs: if options.jobs == 1 { 3 } else { 1 },
            nobody,
            // The other user may not.
            named: !nobody && may_name(),
        }
    }

    /// The same, as the same user; `None` where it is that already.
    pub fn as_same_user(self) -> Option<Elsewhere> {
        self.nobody.then_some(Elsewhere {
            nobody: false,
            ..self
        })
    }

    /// What is different, in words.
    pub fn words(self) -> Vec<String> {
        let mut words = vec![
            "another folder".to_owned(),
            format!("time zone {ZONE}"),
            format!("locale {LOCALE}"),
            "umask 077".to_owned(),
        ];
        words.push(match self.jobs {
            1 => "1 thread".to_owned(),
            jobs => format!("{jobs} threads"),
        });
        words.extend(self.core.map(|core| format!("core {core} alone")));
        words.extend(self.nobody.then(|| format!("user {NOBODY}")));
        words.extend(self.named.then(|| format!("host name {HOST}")));
        words.push("no cache".to_owned());
        words
    }

    /// Makes an empty folder in the scratch for the artifacts; what an earlier try left there goes.
    pub fn prepare(self, folder: &Path) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder).context(|| format!("{}", folder.display()))?;
        }
        fs::create_dir(folder).context(|| format!("{}", folder.display()))?;
        if self.nobody {
            std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY))
                .context(|| format!("{}", folder.display()))?;
        }
        Ok(())
    }

    /// The second build of this definition, into `folder`/out.
    pub fn command(
        self,
        definition: &Definition,
        options: &Options,
        scratch: &Scratch,
        folder: &Path,
    ) -> Result<Command> {
        let absolute =
            |path: &Path| std::path::absolute(path).context(|| format!("{}", path.display()));
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("build")
            .arg(absolute(&definition.path)?)
            .arg("--output")
            .arg(folder.join("out"))
            .args(["--no-cache", "--quiet"]);
        command.args(["--jobs", &self.jobs.to_string()]);
        for format in &options.formats {
            command.args(["--format", format.name()]);
        }
        if !options.disk {
            command.args(["--format", "uki"]);
        }
        if let Some(agent) = &options.agent {
            command.arg("--agent").arg(absolute(agent)?);
        } else if let Some(agent) =
            std::env::var_os("ADAMANT_AGENT").filter(|agent| !agent.is_empty())
        {
            command.arg("--agent").arg(absolute(Path::new(&agent))?);
        } else {
            // The program is started by another name, so it would look in another place.
            command.arg("--agent").arg(agent::locate_beside()?);
        }
        if let Some(keys) = &options.keys {
            command.arg("--keys").arg(absolute(keys)?);
        }
        if let Some(reference) = &options.reference {
            command.arg("--reference").arg(absolute(reference)?);
        }
        if options.unsigned {
            command.arg("--unsigned");
        }
        if let Some(epoch) = options.epoch {
            command.arg(format!("--epoch={epoch}"));
        }
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
            .env("TZ", ZONE)
            .env("LC_ALL", LOCALE)
            .env("LANG", LOCALE)
            .env("TMPDIR", folder);
        if self.nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut cores = CpuSet::new();
        if let Some(core) = self.core {
            cores
                .set(core)
                .map_err(|error| Error::new(format!("core {core}: {}", error.desc())))?;
        }
        let (pinned, named, lock) = (self.core.is_some(), self.named, scratch.lock());
        // SAFETY: between fork and exec only umask, unshare, sethostname, sched_setaffinity, fcntl,
        // sigprocmask and prctl are called, which are async-signal-safe. The descriptor is
        // the scratch folder's, which outlives the command's start.
        unsafe {
            command.pre_exec(move || {
                umask(Mode::from_bits_truncate(0o077));
                if named {
                    unshare(CloneFlags::CLONE_NEWUTS)?;
                    nix::unistd::sethostname(HOST)?;
                }
                if pinned {
                    sched_setaffinity(Pid::from_raw(0), &cores)?;
                }
                if libc::fcntl(lock, libc::F_SETFD, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // Ours wait for `Tidy`, and are inherited: with SIGTERM held back, it would outlive
                // us.
                SigSet::empty().thread_set_mask()?;
                // After the user has changed, which would take it back.
                nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into)
            });
        }
        Ok(command)
    }
}
