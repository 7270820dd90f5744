//! Scrubbing: removes identity and build-dependent data, refuses secrets.
//!
//! After scrubbing, the image holds no data that must differ between servers or builds, and no
//! secret unless the definition excludes its path. The search covers paths, the text of small files
//! and attributes, and keys in all files except programs. It cannot find a secret that looks like
//! ordinary data or is compressed.
//!
//! Rules name paths. If another hard link of a file matches no rule, the file keeps its content
//! under that name.

#[cfg(test)]
mod database_tests;
mod databases;
mod keystore;
#[cfg(test)]
mod package_tests;
pub mod rules;
pub mod secrets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use globset::{GlobSet, GlobSetBuilder};

use crate::definition::Definition;
use crate::error::{Error, Result};
use crate::glob::PathGlobs;
use crate::rootfs::check::Finding;
use crate::term::path_list::Paths;
use crate::tree::{Content, Kind, Meta, NodeId, Time, Tree, show};
use rules::{Action, RULES, SNAKEOIL};

/// The rule that empties /etc/machine-id.
const MACHINE_ID: &str = "machine-id";
/// The rule that clamps the last change in /etc/shadow to the epoch.
const PASSWORD_DATES: &str = "password-dates";
/// The rule that clamps modification times.
const TIMES: &str = "newer-times";
/// The rule that makes databases of Berkeley DB the same in each build.
const DATABASES: &str = "database-numbers";
/// The rule that clamps times in Java's list of certificate authorities.
const KEYSTORE_TIMES: &str = "keystore-times";

/// The result of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The rule's name.
    pub rule: &'static str,
    /// Removed or changed paths.
    pub paths: Vec<Vec<u8>>,
}

/// Applies every rule. Modification times after `epoch` (seconds since 1970) are clamped to it. A
/// secret is an error that lists the rule and each path. Rules without an effect are not in the
/// result.
pub fn scrub(tree: &mut Tree, definition: &Definition, epoch: Option<i64>) -> Result<Vec<Done>> {
    let keep = PathGlobs::new(&definition.keep)?;
    if keep.everything() {
        return Ok(Vec::new());
    }
    let mut done = apply_table(tree, &keep)?;
    done.push(Done {
        rule: MACHINE_ID,
        paths: empty_machine_id(tree, &keep)?,
    });
    done.push(Done {
        rule: DATABASES,
        paths: databases::make_reproducible(tree, &keep, epoch)?,
    });
    if let Some(epoch) = epoch {
        done.push(Done {
            rule: PASSWORD_DATES,
            paths: clamp_password_dates(tree, &keep, epoch)?,
        });
        done.push(Done {
            rule: KEYSTORE_TIMES,
            paths: keystore::clamp(tree, &keep, epoch)?,
        });
        done.push(Done {
            rule: TIMES,
            paths: clamp_times(tree, &keep, epoch),
        });
    }
    done.retain(|done| !done.paths.is_empty());
    secrets::refuse(tree, &keep)?;
    Ok(done)
}

/// Findings about removed files: services that need their own file on each server.
pub fn notes(done: &[Done]) -> Vec<Finding> {
    let note = |done: &Done| {
        let rule = RULES.iter().find(|rule| rule.name == done.rule)?;
        let paths: Paths = done.paths.iter().map(|path| show(path)).collect();
        let message = format!(
            "{paths}: removed, because all servers of the image would share it ({})",
            rule.reason
        );
        Some(Finding {
            is_error: false,
            rule: rule.name,
            message,
            hint: rule.server?.to_owned(),
        })
    };
    done.iter().filter_map(note).collect()
}

fn apply_table(tree: &mut Tree, keep: &PathGlobs) -> Result<Vec<Done>> {
    let (globs, rule_of) = compile_table()?;
    let mut done: Vec<Done> = RULES
        .iter()
        .map(|rule| Done {
            rule: rule.name,
            paths: Vec::new(),
        })
        .collect();
    let mut hits: Vec<(usize, Vec<u8>, NodeId)> = Vec::new();
    tree.visit(&mut |path, id| {
        let first = globs
            .matches(crate::glob::as_path(path))
            .into_iter()
            .map(|glob| rule_of[glob])
            .min();
        if let Some(rule) = first
            && RULES[rule].action.concerns(tree.node(id))
            && !keep.holds(path)
        {
            hits.push((rule, path.to_vec(), id));
        }
    });
    // All names of a file that match a rule are emptied together. Names that match no rule keep the
    // content.
    let mut emptied: BTreeMap<NodeId, Vec<Vec<u8>>> = BTreeMap::new();
    let mut shared: BTreeMap<NodeId, (usize, Vec<u8>)> = BTreeMap::new();
    for (rule, path, id) in hits {
        match RULES[rule].action {
            Action::Empty => emptied.entry(id).or_default().push(path.clone()),
            Action::Remove | Action::RemoveFile | Action::RemoveTimedBytecode => tree.remove(&path),
        }
        if RULES[rule].is_secret && tree.node(id).links > 0 {
            shared.insert(id, (rule, path.clone()));
        }
        done[rule].paths.push(path);
    }
    for paths in emptied.values() {
        tree.replace_content(
            &paths.iter().map(|path| &path[..]).collect::<Vec<_>>(),
            Content::default(),
        )?;
    }
    for (done, _) in done
        .iter_mut()
        .zip(RULES)
        .filter(|(done, rule)| rule.name == SNAKEOIL && !done.paths.is_empty())
    {
        done.paths.extend(remove_snakeoil_links(tree, keep));
    }
    refuse_other_names(tree, keep, &shared)?;
    Ok(done)
}

/// Removes links to the snakeoil certificate. Their names are hashes of its subject, which is the
/// host name of the building machine.
fn remove_snakeoil_links(tree: &mut Tree, keep: &PathGlobs) -> Vec<Vec<u8>> {
    const FOLDER: &[u8] = b"/etc/ssl/certs";
    let Some(folder) = tree.lookup(FOLDER) else {
        return Vec::new();
    };
    let leads_there = |id: NodeId| matches!(&tree.node(id).kind, Kind::Symlink(target) if target.ends_with(b"ssl-cert-snakeoil.pem"));
    let links = tree
        .children(folder)
        .filter(|(_, id)| leads_there(*id))
        .map(|(name, _)| [FOLDER, b"/", name].concat());
    let links: Vec<Vec<u8>> = links.filter(|path| !keep.holds(path)).collect();
    links.iter().for_each(|path| tree.remove(path));
    links
}

/// Fails if a removed secret is still in the image under a name that no rule covers.
fn refuse_other_names(
    tree: &Tree,
    keep: &PathGlobs,
    removed: &BTreeMap<NodeId, (usize, Vec<u8>)>,
) -> Result<()> {
    let mut found = Paths::default();
    if !removed.is_empty() {
        tree.visit(&mut |path, id| {
            if let Some((rule, secret)) = removed.get(&id).filter(|_| !keep.holds(path)) {
                found.push(format!(
                    "{} (the same file as {}, rule {})",
                    show(path),
                    show(secret),
                    RULES[*rule].name
                ));
            }
        });
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "the image would hold secrets under another name: {found}"
    ))
    .hint("leave these names out of the sources"))
}

/// All globs of the table in one set, and the index of the rule for each.
fn compile_table() -> Result<(GlobSet, Vec<usize>)> {
    let mut set = GlobSetBuilder::new();
    let mut rule_of = Vec::new();
    for (index, rule) in RULES.iter().enumerate() {
        for glob in rule.paths {
            set.add(
                crate::glob::compile_glob(glob).map_err(|why| {
                    Error::new(format!("scrub rule {}: {glob:?}: {why}", rule.name))
                })?,
            );
            rule_of.push(index);
        }
    }
    let set = set
        .build()
        .map_err(|e| Error::new(format!("scrub rules: {e}")))?;
    Ok((set, rule_of))
}

/// Init and the agent bind-mount the server's own machine-id over this empty file. Without the
/// file, systemd has no machine-id on a read-only root.
fn empty_machine_id(tree: &mut Tree, keep: &PathGlobs) -> Result<Vec<Vec<u8>>> {
    const PATH: &[u8] = b"/etc/machine-id";
    if keep.holds(PATH) {
        return Ok(Vec::new());
    }
    let found = tree.lookup(PATH);
    match found.map(|id| &tree.node(id).kind) {
        Some(Kind::File(content)) if content.is_empty() => return Ok(Vec::new()),
        None if !has_systemd(tree) => return Ok(Vec::new()),
        _ => {}
    }
    let meta = found
        .map(|id| tree.node(id).meta.clone())
        .filter(|meta| meta.mode & 0o444 == 0o444 && meta.mode & 0o7000 == 0);
    let meta = Meta {
        mode: meta.as_ref().map_or(0o444, |meta| meta.mode & 0o644),
        mtime: meta.map(|meta| meta.mtime).unwrap_or_default(),
        ..Meta::default()
    };
    tree.remove(PATH);
    tree.insert(PATH, meta, Kind::File(Content::default()))?;
    Ok(vec![PATH.to_vec()])
}

/// Whether the image has systemd.
pub(crate) fn has_systemd(tree: &Tree) -> bool {
    tree.resolve(b"/usr/lib/systemd/systemd")
        .or(tree.resolve(b"/lib/systemd/systemd"))
        .is_some()
}

/// Clamps the third field of /etc/shadow, the day of the last change. For accounts of packages it
/// is the day of the build.
fn clamp_password_dates(tree: &mut Tree, keep: &PathGlobs, epoch: i64) -> Result<Vec<Vec<u8>>> {
    const PATH: &[u8] = b"/etc/shadow";
    /// Maximum size of the file, bytes: more than any image needs.
    const LIMIT: u64 = 1 << 20;
    let Some(id) = tree.lookup(PATH).filter(|_| !keep.holds(PATH)) else {
        return Ok(Vec::new());
    };
    let Kind::File(content) = &tree.node(id).kind else {
        return Ok(Vec::new());
    };
    let Ok(bytes) = content.to_vec(LIMIT) else {
        return Ok(Vec::new());
    };
    let today = epoch.div_euclid(86400);
    let clamp = |line: &[u8]| -> Vec<u8> {
        let mut fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let day = fields
            .get(2)
            .and_then(|day| std::str::from_utf8(day).ok())
            .and_then(|day| day.parse::<i64>().ok());
        let text = today.to_string();
        if day.is_some_and(|day| day > today) {
            fields[2] = text.as_bytes();
        }
        fields.join(&b':')
    };
    let clamped = bytes
        .split(|b| *b == b'\n')
        .map(clamp)
        .collect::<Vec<_>>()
        .join(&b'\n');
    if clamped == bytes {
        return Ok(Vec::new());
    }
    tree.replace_content(&[PATH], Content::from_memory(clamped))?;
    Ok(vec![PATH.to_vec()])
}

fn clamp_times(tree: &mut Tree, keep: &PathGlobs, epoch: i64) -> Vec<Vec<u8>> {
    let limit = Time {
        seconds: epoch,
        nanoseconds: 0,
    };
    let mut newer = Vec::new();
    if tree.node(Tree::ROOT).meta.mtime > limit {
        newer.push((b"/".to_vec(), Tree::ROOT));
    }
    // All names of a file share its time: one excluded name excludes the others.
    let mut kept = HashSet::new();
    tree.visit(&mut |path, id| {
        if tree.node(id).meta.mtime > limit {
            if keep.holds(path) {
                kept.insert(id);
            } else {
                newer.push((path.to_vec(), id));
            }
        }
    });
    newer.retain(|(_, id)| !kept.contains(id));
    for (_, id) in &newer {
        tree.node_mut(*id).meta.mtime = limit;
    }
    newer.into_iter().map(|(path, _)| path).collect()
}
