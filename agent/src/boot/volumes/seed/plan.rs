//! Decides, without changing the volume, which members are seeded, replaced, removed and kept.

use std::path::{Path, PathBuf};

use super::compare::{
    self, Links, PathState, image_matches, path_state, read_content, root_matches, root_print,
};
use super::print::Print;
use super::record::{MemberState, Members, SeedRecord};
use super::units::{Division, Member, group_by_links};
use super::{IDENTITY_DIR, KeptUnits, LOGS, LOST_AND_FOUND, SeedError, Seeding};
use crate::kernel::rooted_fs;
use adamant_contract::policy::Refresh;

/// The result of planning.
pub struct Plan {
    pub members: Vec<Member>,
    pub batches: Vec<Batch>,
    /// Recorded members that do not change.
    pub settled: Members,
    pub root: Option<Print>,
    /// Whether the volume's root gets the metadata of the image's directory.
    pub set_root: bool,
    pub kept: KeptUnits,
    /// Whether the volume was compared with the image.
    pub compared: bool,
}

/// Members that are moved together or not at all.
#[derive(Default)]
pub struct Batch {
    /// Positions in [`Plan::members`].
    pub members: Vec<usize>,
    /// The members that are replaced or removed, by path, with their prints.
    pub old: Members,
}

impl Plan {
    /// Seeded members that the image no longer has.
    fn removed_members(&self, recorded: &Members) -> Vec<PathBuf> {
        let mut shipped = Members::default();
        self.members
            .iter()
            .for_each(|member| shipped.settle(&member.path, &[]));
        recorded
            .paths()
            .filter(|path| shipped.settled_prints(path).is_none())
            .map(Path::to_owned)
            .collect()
    }
}

impl Batch {
    /// A batch of members that do not exist on the volume.
    fn adding(members: Vec<usize>) -> Batch {
        Batch {
            members,
            old: Members::default(),
        }
    }

    /// Whether the batch replaces nothing.
    pub fn adds_only(&self) -> bool {
        self.old.is_empty()
    }
}

/// How a member of the image compares with the volume and its record.
#[derive(Clone, Copy, PartialEq)]
enum Standing {
    /// It was never seeded, and does not exist on the volume.
    Missing,
    /// It was never seeded, but exists with the same content.
    Found,
    /// It was never seeded, and its path holds something else.
    Foreign,
    /// It was seeded, and this image has the same content.
    Same,
    /// It was seeded, and this image has other content.
    Other,
}

impl Seeding<'_, '_, '_> {
    /// Makes the plan.
    pub fn plan(
        &mut self,
        members: Vec<Member>,
        record: Option<SeedRecord>,
        same_image: bool,
    ) -> Result<Plan, SeedError> {
        let known = record.is_some();
        let SeedRecord {
            root,
            members: recorded,
            text,
        } = record.unwrap_or_default();
        let fresh = !known && self.count_other_entries(&Members::default()) == Some(0);
        let compared = !fresh && !same_image;
        let mut plan = Plan {
            members,
            batches: Vec::new(),
            settled: Members::default(),
            root,
            set_root: fresh,
            kept: KeptUnits::default(),
            compared,
        };
        let standings = self.standings(&mut plan.members, &recorded, same_image)?;
        for (member, standing) in plan.members.iter().zip(&standings) {
            if *standing == Standing::Found {
                plan.settled.insert(
                    member.path.clone(),
                    MemberState::Settled(
                        member
                            .entries
                            .iter()
                            .map(super::units::Entry::print)
                            .collect(),
                    ),
                );
            }
        }
        if same_image {
            plan.kept = text.kept;
        }
        match self.division {
            Division::EachMember => self.plan_members(&mut plan, &standings, &recorded, same_image),
            Division::OneUnit if fresh || same_image => plan_first(&mut plan, &standings),
            Division::OneUnit => self.plan_whole(&mut plan, &standings, &recorded, known),
        }
        // Replaced and removed members are recorded after their moves.
        let mut replaced = Members::default();
        plan.batches
            .iter()
            .flat_map(|batch| batch.old.paths())
            .for_each(|path| replaced.settle(path, &[]));
        for path in recorded
            .paths()
            .filter(|path| replaced.settled_prints(path).is_none())
        {
            plan.settled
                .settle(path, recorded.settled_prints(path).unwrap_or_default());
        }
        Ok(plan)
    }

    fn standings(
        &mut self,
        members: &mut [Member],
        recorded: &Members,
        same_image: bool,
    ) -> Result<Vec<Standing>, SeedError> {
        let mut standings = Vec::new();
        for member in members {
            standings.push(
                match (
                    recorded.settled_prints(&member.path),
                    path_state(self.request.volume, &member.path),
                ) {
                    (Some(_), _) if same_image => Standing::Same,
                    (Some(prints), _) => match image_matches(
                        self.request.image,
                        member,
                        prints,
                        &mut self.buffers,
                        self.pace,
                    )? {
                        true => Standing::Same,
                        false => Standing::Other,
                    },
                    (None, PathState::Nothing) => Standing::Missing,
                    (None, PathState::Unknown) => Standing::Foreign,
                    (None, PathState::Something) => {
                        for entry in &mut member.entries {
                            read_content(self.request.image, entry, &mut self.buffers, self.pace)?;
                        }
                        let prints: Vec<Print> = member
                            .entries
                            .iter()
                            .map(super::units::Entry::print)
                            .collect();
                        let mut comparison = self.comparison();
                        comparison.with_covered = false;
                        match comparison.is_unchanged(
                            &member.path,
                            Some(&prints),
                            &mut Links::new(),
                        ) {
                            true => Standing::Found,
                            false => Standing::Foreign,
                        }
                    }
                },
            );
        }
        Ok(standings)
    }

    /// Plans a volume where each member is a unit. Members that share a hard link form one unit.
    fn plan_members(
        &mut self,
        plan: &mut Plan,
        standings: &[Standing],
        recorded: &Members,
        same_image: bool,
    ) {
        let replaces = self.request.refresh == Refresh::Unchanged && !same_image;
        let (mut candidates, mut changed): (Vec<Batch>, Vec<Batch>) = (Vec::new(), Vec::new());
        for group in group_by_links(&plan.members) {
            let has = |wanted: &[Standing]| {
                group
                    .iter()
                    .any(|position| wanted.contains(&standings[*position]))
            };
            if !has(&[Standing::Missing, Standing::Other]) {
                continue;
            }
            let mut batch = Batch::default();
            for position in &group {
                let path = &plan.members[*position].path;
                match standings[*position] {
                    Standing::Missing => batch.members.push(*position),
                    // A member with the same content is replaced only if it shares a hard link with
                    // one that differs.
                    Standing::Other | Standing::Same => {
                        batch.members.push(*position);
                        batch
                            .old
                            .settle(path, recorded.settled_prints(path).unwrap_or_default());
                    }
                    Standing::Foreign | Standing::Found => {}
                }
            }
            match () {
                () if batch.adds_only() => plan.batches.push(batch),
                () if !replaces || has(&[Standing::Foreign]) => changed.push(batch),
                () => candidates.push(batch),
            }
        }
        if replaces {
            // A member above a covered path stays as long as that path is covered.
            for path in plan
                .removed_members(recorded)
                .iter()
                .filter(|path| !self.covered.is_above_covered(path))
            {
                let mut batch = Batch::default();
                batch
                    .old
                    .settle(path, recorded.settled_prints(path).unwrap_or_default());
                candidates.push(batch);
            }
        }
        let (unchanged, others) = self.unchanged(candidates);
        plan.batches.extend(unchanged);
        changed.extend(others);
        let mut kept: Vec<PathBuf> = Vec::new();
        for batch in changed {
            let is_same = |path: &Path| {
                plan.members
                    .iter()
                    .zip(standings)
                    .any(|(member, standing)| member.path == path && *standing == Standing::Same)
            };
            kept.extend(
                batch
                    .old
                    .paths()
                    .filter(|path| !is_same(path))
                    .map(Path::to_owned),
            );
            // New members of the batch are seeded alone.
            let members: Vec<usize> = batch
                .members
                .into_iter()
                .filter(|position| standings[*position] == Standing::Missing)
                .collect();
            if !members.is_empty() {
                plan.batches.push(Batch::adding(members));
            }
        }
        if !replaces {
            return;
        }
        // In the image's order; then members that the image no longer has.
        let stays = |(member, standing): &(&Member, &Standing)| {
            **standing == Standing::Foreign || kept.contains(&member.path)
        };
        let names: Vec<String> = plan
            .members
            .iter()
            .zip(standings)
            .filter(stays)
            .map(|(member, _)| self.name(&member.path))
            .collect();
        let gone = kept
            .iter()
            .filter(|path| !plan.members.iter().any(|member| member.path == **path))
            .map(|path| self.name(path));
        names
            .into_iter()
            .chain(gone)
            .for_each(|name| plan.kept.add(name));
    }

    /// Plans a volume where all members form one unit.
    fn plan_whole(
        &mut self,
        plan: &mut Plan,
        standings: &[Standing],
        recorded: &Members,
        known: bool,
    ) {
        let removed = plan.removed_members(recorded);
        let root = root_print(self.request.image, &mut self.buffers);
        let root_differs = plan
            .root
            .zip(root)
            .is_some_and(|(old, new)| !old.is_same_content(&new));
        let settled = |standing: &Standing| matches!(standing, Standing::Same | Standing::Found);
        if self.request.refresh == Refresh::Never
            || (standings.iter().all(settled) && removed.is_empty() && !root_differs)
        {
            return;
        }
        // All of the unit is compared, including members that will not be replaced.
        let unit = Batch {
            members: Vec::new(),
            old: recorded.clone(),
        };
        let is_unchanged = known
            && self.count_other_entries(recorded) == Some(0)
            && root_matches(self.request.volume, plan.root.as_ref(), &mut self.buffers)
            && self.unchanged(vec![unit]).1.is_empty();
        if !is_unchanged {
            plan.kept.add(self.request.mount.to_owned());
            if self.request.mount == LOGS {
                self.plan_directories(plan, standings);
            }
            return;
        }
        let mut batch = Batch::default();
        for group in group_by_links(&plan.members) {
            if group
                .iter()
                .any(|position| matches!(standings[*position], Standing::Other | Standing::Missing))
            {
                batch.members.extend(group);
            }
        }
        for path in batch
            .members
            .iter()
            .map(|position| &plan.members[*position].path)
            .chain(&removed)
        {
            if let Some(prints) = recorded.settled_prints(path) {
                batch.old.settle(path, prints);
            }
        }
        plan.set_root = root_differs;
        plan.batches.push(batch);
    }

    /// On the log volume, adds new directories, without their files, although the unit was changed:
    /// a service writes its logs into a directory that its package ships and that it can't make
    /// itself.
    fn plan_directories(&mut self, plan: &mut Plan, standings: &[Standing]) {
        for (position, standing) in standings.iter().enumerate() {
            let member = &mut plan.members[position];
            if *standing == Standing::Missing
                && member
                    .entries
                    .first()
                    .is_some_and(|top| top.metadata.is_folder())
            {
                member.entries.retain(|entry| entry.metadata.is_folder());
                plan.batches.push(Batch::adding(vec![position]));
            }
        }
    }

    /// Divides batches into unchanged and changed ones. A hard link to a file that is not replaced
    /// as well counts as a change.
    fn unchanged(&mut self, batches: Vec<Batch>) -> (Vec<Batch>, Vec<Batch>) {
        let (mut unchanged, mut changed) = (Vec::new(), Vec::new());
        for batch in batches {
            let mut links = Links::new();
            let is_as = batch.old.paths().all(|path| {
                self.comparison()
                    .is_unchanged(path, batch.old.settled_prints(path), &mut links)
            });
            if is_as {
                unchanged.push((batch, links))
            } else {
                changed.push(batch)
            }
        }
        loop {
            let mut seen = Links::new();
            for (inode, (names, links)) in unchanged.iter().flat_map(|(_, links)| links) {
                seen.entry(*inode).or_insert((0, *links)).0 += names;
            }
            let leads_out = |links: &Links| {
                links
                    .keys()
                    .any(|inode| seen.get(inode).is_none_or(|(names, links)| names < links))
            };
            match unchanged.iter().position(|(_, links)| leads_out(links)) {
                Some(position) => changed.push(unchanged.swap_remove(position).0),
                None => {
                    return (
                        unchanged.into_iter().map(|(batch, _)| batch).collect(),
                        changed,
                    );
                }
            }
        }
    }

    /// Number of entries in the volume's root other than the seeded ones, the agent's own and
    /// covered paths. `None` if there are far more entries than expected.
    fn count_other_entries(&self, recorded: &Members) -> Option<usize> {
        let names = rooted_fs::names_up_to(
            self.request.volume,
            recorded.len() + self.covered.0.len() + 16,
        )
        .ok()??;
        let is_known = |path: &PathBuf| {
            let own = *path == Path::new(IDENTITY_DIR) || *path == Path::new(LOST_AND_FOUND);
            own || recorded.settled_prints(path).is_some() || self.covered.covers(path)
        };
        Some(
            names
                .iter()
                .map(|name| compare::path_of(name))
                .filter(|path| !is_known(path))
                .count(),
        )
    }
}

/// Plans the first seeding of a volume that is one unit, with a batch for each member, so that some
/// are seeded although others do not fit.
fn plan_first(plan: &mut Plan, standings: &[Standing]) {
    for group in group_by_links(&plan.members) {
        let members: Vec<usize> = group
            .into_iter()
            .filter(|position| standings[*position] == Standing::Missing)
            .collect();
        if !members.is_empty() {
            plan.batches.push(Batch::adding(members));
        }
    }
}
