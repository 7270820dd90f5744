//! The stage that finds the partitions of root and hash tree, on all disks.
//!
//! - Two candidates for one partition are refused, also if the second appears later in the boot.
//! - The stage waits for missing partitions, but not longer than the deadline.
//! - If an interrupted write damaged a partition table, its backup is read; the table of the root's
//!   disk is repaired.
//! - Nothing on a disk is trusted: a found partition is only a candidate for `verify`.

mod survey;

use std::time::{Duration, Instant};

use adamant_contract::cmdline::{CommandLine, DeviceName};
use adamant_contract::report::StageName;
use adamant_contract::root_hash::RootHash;

use self::survey::Survey;
use super::early::Early;
use super::hotplug::HotplugListener;
use super::{Context, Failure, driverless};
use crate::kernel::block::{Disk, KernelPartition};

const STAGE: StageName = StageName::Locate;
/// Time to wait for further disks after both partitions were found. Two disks with the same image
/// must be refused, not chosen by chance. For the same reason [`refuse_second_disk`] searches once
/// more at the end of the boot.
const SETTLE: Duration = Duration::from_millis(25);
/// Time after which modules are tried that no device has asked for.
const LAST_RESORT: Duration = Duration::from_secs(3);
/// Time between two feedings of the watchdog while waiting.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// The located root. Nothing of it is verified yet.
pub struct Located {
    pub(super) cmdline: CommandLine,
    pub(super) root_hash: RootHash,
    pub(super) data: KernelPartition,
    pub(super) tree: KernelPartition,
    /// The disk with the partition `data`.
    pub(super) disk: Disk,
}

/// Waits for the partitions until the deadline.
pub fn locate_root(early: Early, context: &mut Context) -> Result<Located, Failure> {
    let Early {
        cmdline,
        mut hotplug,
    } = early;
    let Some(root_hash) = cmdline.root_hash else {
        return Err(Failure::new(
            STAGE,
            "roothash=",
            "not on the kernel command line",
            "boot with the command line that was built with the image",
        ));
    };
    let [data, tree] = partition_names(&cmdline, &root_hash);
    let survey = wait_for_partitions(&data, &tree, cmdline.device_timeout, &mut hotplug, context)?;
    context.hotplug = Some(hotplug);
    survey.repair([&data, &tree], context);
    survey.close_other_paths([&data, &tree], context);
    let (disk, data) = survey.resolve("root", &data)?;
    let (_, tree) = survey.resolve("verity", &tree)?;
    context.report.root_hash = root_hash.to_string();
    context.report.root.data = data.path.display().to_string();
    context.report.root.tree = tree.path.display().to_string();
    Ok(Located {
        cmdline,
        root_hash,
        data,
        tree,
        disk,
    })
}

/// The names of the data and hash partitions.
fn partition_names(cmdline: &CommandLine, root_hash: &RootHash) -> [DeviceName; 2] {
    let data = cmdline
        .root_data
        .clone()
        .unwrap_or(DeviceName::PartUuid(root_hash.data_partuuid()));
    let tree = cmdline
        .root_tree
        .clone()
        .unwrap_or(DeviceName::PartUuid(root_hash.tree_partuuid()));
    [data, tree]
}

/// Searches all disks once more, because a second disk with the same image may have been too slow
/// for the first search. Refuses such a disk, and makes other paths to the same disk read-only.
pub fn refuse_second_disk(located: &Located, context: &mut Context) -> Result<(), Failure> {
    let survey = Survey::of_all_disks()?;
    let wanted = partition_names(&located.cmdline, &located.root_hash);
    for (role, name) in ["root", "verity"].into_iter().zip(&wanted) {
        // A partition that has disappeared is in use by this boot, so its next read fails.
        survey.find_exactly_one(role, name)?;
    }
    let [data, tree] = &wanted;
    survey.close_other_paths([data, tree], context);
    Ok(())
}

/// Searches the disks, and again whenever a block device appears, until both partitions exist
/// exactly once and no other disk appears.
fn wait_for_partitions(
    data: &DeviceName,
    tree: &DeviceName,
    timeout: Duration,
    hotplug: &mut HotplugListener,
    context: &mut Context,
) -> Result<Survey, Failure> {
    let start = Instant::now();
    let (deadline, mut last_resort) = (start + timeout, Some(start + LAST_RESORT.min(timeout / 2)));
    let mut said = false;
    loop {
        let survey = Survey::of_all_disks()?;
        let found = [("root", data), ("verity", tree)]
            .map(|(role, wanted)| survey.find_exactly_one(role, wanted));
        let missing = found.into_iter().find_map(|f| f.transpose()).transpose()?;
        let now = Instant::now();
        let until = match &missing {
            None => now + SETTLE,
            Some(why) if now >= deadline => {
                let attach = "attach the disk that holds the image with this root hash, or boot with the command line that was built with it";
                let (driver, remedy) = driverless::explain(
                    &driverless::find_driverless(),
                    &context.report.modules,
                    attach,
                )
                .map_or((String::new(), attach.to_owned()), |(driver, remedy)| {
                    (format!("; {driver}"), remedy)
                });
                return Err(Failure::new(
                    STAGE,
                    why.what.clone(),
                    format!("{}{driver}", why.why),
                    remedy,
                ));
            }
            Some(why) => {
                if !said {
                    log::info!("waiting up to {} s for the {}", timeout.as_secs(), why.what);
                    said = true;
                }
                if last_resort.is_some_and(|at| now >= at) {
                    last_resort = None;
                    let loaded = hotplug.load_the_rest(context);
                    log::info!(
                        "the {} has not appeared: {loaded} more modules were loaded, which no device had asked for",
                        why.what
                    );
                }
                deadline
                    .min(now + SIGN_OF_LIFE)
                    .min(last_resort.unwrap_or(deadline))
            }
        };
        context.watchdog.alive();
        let changed = hotplug
            .wait_for_disk(until, context)
            .map_err(|e| Failure::new(STAGE, "waiting for disks", e, "report this"))?;
        if missing.is_none() && !changed {
            return Ok(survey);
        }
    }
}
