//! The environment of the second build. It differs from the first build's in everything that may
//! differ between two machines, as far as one machine can vary it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, Uid};

use super::super::{BuildOptions, agent};
use super::work_folder::WorkFolder;
use crate::definition::{Definition, Origin};
use crate::error::{Context, Error, Result};

/// User and group `nobody` (Debian Policy, 9.2.2).
const NOBODY: u32 = 65534;
const ZONE: &str = "Pacific/Kiritimati";
const LOCALE: &str = "tr_TR.UTF-8";
const HOST: &str = "elsewhere";

/// The variations of the second build.
#[derive(Debug, Clone, Copy)]
pub struct VariedEnvironment {
    /// The only core that it may use, if this process may use several.
    core: Option<usize>,
    /// Number of threads.
    jobs: usize,
    /// Whether it runs as user `nobody`.
    is_other_user: bool,
    /// Whether it has another host name.
    has_other_host_name: bool,
}

/// Whether this user may create a UTS namespace. A new thread tries it, because the namespace then
/// belongs to that thread only.
fn may_set_host_name() -> bool {
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWUTS).is_ok())
        .join()
        .unwrap_or(false)
}

impl VariedEnvironment {
    /// Chooses as many variations as possible. Another user requires root here and sources that do
    /// not need root: mmdebstrap needs root, or subordinate ids that `nobody` does not have.
    pub fn choose(definition: &Definition, options: &BuildOptions) -> VariedEnvironment {
        let allowed = sched_getaffinity(Pid::from_raw(0)).ok();
        let cores: Vec<usize> = (0..CpuSet::count())
            .filter(|core| allowed.is_some_and(|set| set.is_set(*core).unwrap_or(false)))
            .collect();
        let is_other_user = Uid::effective().is_root()
            && !definition
                .sources
                .iter()
                .any(|source| matches!(source.origin, Origin::Debian(_)));
        VariedEnvironment {
            core: cores.last().copied().filter(|_| cores.len() > 1),
            jobs: if options.jobs == 1 { 3 } else { 1 },
            is_other_user,
            // `nobody` may not set a host name.
            has_other_host_name: !is_other_user && may_set_host_name(),
        }
    }

    /// The same environment without another user; `None` if it has none.
    pub fn as_same_user(self) -> Option<VariedEnvironment> {
        self.is_other_user.then_some(VariedEnvironment {
            is_other_user: false,
            ..self
        })
    }

    /// The variations, as text.
    pub fn variations(self) -> Vec<String> {
        let mut variations = vec![
            "another directory".to_owned(),
            format!("time zone {ZONE}"),
            format!("locale {LOCALE}"),
            "umask 077".to_owned(),
        ];
        variations.push(match self.jobs {
            1 => "1 thread".to_owned(),
            jobs => format!("{jobs} threads"),
        });
        variations.extend(self.core.map(|core| format!("only core {core}")));
        variations.extend(self.is_other_user.then(|| format!("user {NOBODY}")));
        variations.extend(
            self.has_other_host_name
                .then(|| format!("host name {HOST}")),
        );
        variations.push("no cache".to_owned());
        variations
    }

    /// Creates an empty directory for the second build, and removes that of an earlier attempt.
    pub fn prepare(self, folder: &Path) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder).context(|| format!("{}", folder.display()))?;
        }
        fs::create_dir(folder).context(|| format!("{}", folder.display()))?;
        if self.is_other_user {
            std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY))
                .context(|| format!("{}", folder.display()))?;
        }
        Ok(())
    }

    /// The command that builds this definition into `folder`/out.
    pub fn command(
        self,
        definition: &Definition,
        options: &BuildOptions,
        work_folder: &WorkFolder,
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
            // The child is started as /proc/self/exe, so it cannot find the agent beside itself.
            command.arg("--agent").arg(agent::find_beside_builder()?);
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
        if self.is_other_user {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut cores = CpuSet::new();
        if let Some(core) = self.core {
            cores
                .set(core)
                .map_err(|error| Error::new(format!("core {core}: {}", error.desc())))?;
        }
        let (is_pinned, has_other_host_name) = (self.core.is_some(), self.has_other_host_name);
        let lock = work_folder.lock();
        // SAFETY: between fork and exec, only umask, unshare, sethostname, sched_setaffinity,
        // fcntl, sigprocmask and prctl are called, which are async-signal-safe. The
        // descriptor belongs to the work directory, which outlives the start of the command.
        unsafe {
            command.pre_exec(move || {
                umask(Mode::from_bits_truncate(0o077));
                if has_other_host_name {
                    unshare(CloneFlags::CLONE_NEWUTS)?;
                    nix::unistd::sethostname(HOST)?;
                }
                if is_pinned {
                    sched_setaffinity(Pid::from_raw(0), &cores)?;
                }
                if libc::fcntl(lock, libc::F_SETFD, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // The child inherits the signals that `SignalGuard` blocks. With SIGTERM blocked it
                // would outlive this process.
                SigSet::empty().thread_set_mask()?;
                // A change of the user resets this setting, so it comes last.
                nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into)
            });
        }
        Ok(command)
    }
}
