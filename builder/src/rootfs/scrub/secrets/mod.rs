//! Refuses secrets: private keys, shared keys, cloud credentials, shell histories and passwords in
//! plain text.
//!
//! Most rules require both a path and a text, so that documentation and empty examples pass.
//! Extended attributes are checked like files.

mod der;
mod keys;
mod rules;
mod text;

use globset::{GlobSet, GlobSetBuilder};

use self::rules::{EVERYWHERE, PRIVATE_KEY, RULES};
use crate::error::{Error, Result};
use crate::glob::{PathGlobs, as_glob, as_path, compile_glob};
use crate::term::path_list::Paths;
use crate::tree::{Content, Kind, Meta, Tree, show};

pub use self::rules::paths_by_name;

/// Maximum size of a file that every rule checks as one text, bytes: keys and credentials are
/// small. Larger files are only searched for keys.
const SCANNED: u64 = 64 << 10;
/// Number of bytes that are checked in a larger file whose path alone is suspicious (a history, a
/// list of accounts).
const HEAD: u64 = 4 << 20;
/// Number of files in one batch for the worker threads.
const BATCH: usize = 2048;

/// Path and content.
type ScannedFile = (Vec<u8>, Content);

/// A secret in the image.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Secret {
    rule: &'static str,
    path: Vec<u8>,
    /// The extended attribute that holds the secret; `None` for the content of the file.
    attribute: Option<Vec<u8>>,
}

/// Fails if the image holds a secret whose path is not excluded. The error lists each rule and its
/// paths.
pub fn refuse(tree: &Tree, keep: &PathGlobs) -> Result<()> {
    let rules = compile_rules()?;
    let mut found: Vec<Secret> = Vec::new();
    let mut in_attributes: Vec<Secret> = Vec::new();
    let mut failed = None;
    let mut batch = Vec::with_capacity(BATCH);
    let mut check_batch = |batch: &mut Vec<ScannedFile>| {
        let secrets = check_files(&rules, batch);
        for (file, secret) in batch.drain(..).zip(secrets) {
            match secret {
                Ok(rule) => found.extend(rule.map(|rule| Secret {
                    rule,
                    path: file.0,
                    attribute: None,
                })),
                Err(e) => {
                    failed = failed
                        .take()
                        .or(Some(Error::new(format!("{}: {e}", show(&file.0)))))
                }
            }
        }
    };
    tree.visit(&mut |path, id| {
        let node = tree.node(id);
        if node.meta.xattrs.is_some() && !keep.holds(path) {
            in_attributes.extend(secrets_of_attributes(path, &node.meta));
        }
        let Kind::File(content) = &node.kind else {
            return;
        };
        if content.is_empty() || keep.holds(path) {
            return;
        }
        batch.push((path.to_vec(), content.clone()));
        if batch.len() == BATCH {
            check_batch(&mut batch);
        }
    });
    check_batch(&mut batch);
    found.extend(in_attributes);
    match failed {
        Some(error) => Err(error),
        None if found.is_empty() => Ok(()),
        None => Err(refusal(found)),
    }
}

/// Finds secrets in the attributes of an entry. Every value is small and is checked as text and as
/// DER.
fn secrets_of_attributes<'a>(path: &'a [u8], meta: &'a Meta) -> impl Iterator<Item = Secret> + 'a {
    meta.xattrs
        .iter()
        .flat_map(|all| all.iter())
        .filter_map(move |(name, value)| {
            let text = keys::text(value);
            let rule = match der::is_private_key(value) {
                true => PRIVATE_KEY,
                false => {
                    rules::ATTRIBUTE_RULES
                        .iter()
                        .find(|(_, is_secret)| is_secret(&text))?
                        .0
                }
            };
            Some(Secret {
                rule,
                path: path.to_vec(),
                attribute: Some(name.to_vec()),
            })
        })
}

/// Checks files on all cores. The results keep the order of the files.
fn check_files(
    (globs, rule_of): &(GlobSet, Vec<usize>),
    files: &[ScannedFile],
) -> Vec<std::io::Result<Option<&'static str>>> {
    let secret = |(path, content): &ScannedFile| {
        let rules: Vec<usize> = globs
            .matches(as_path(path))
            .into_iter()
            .map(|glob| rule_of[glob])
            .collect();
        secret_in(content, &rules)
    };
    let share = files
        .len()
        .div_ceil(std::thread::available_parallelism().map_or(1, usize::from))
        .max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .chunks(share)
            .map(|files| {
                (
                    files.len(),
                    scope.spawn(move || files.iter().map(secret).collect::<Vec<_>>()),
                )
            })
            .collect();
        let failed = |count| {
            (0..count)
                .map(|_| Err(std::io::Error::other("the search for secrets failed")))
                .collect()
        };
        threads
            .into_iter()
            .flat_map(|(count, thread)| thread.join().unwrap_or_else(|_| failed(count)))
            .collect()
    })
}

fn compile_rules() -> Result<(GlobSet, Vec<usize>)> {
    let mut set = GlobSetBuilder::new();
    let mut rule_of = Vec::new();
    for (index, rule) in RULES.iter().enumerate() {
        for glob in rule.paths {
            set.add(compile_glob(glob).map_err(|why| {
                Error::new(format!("secret rule {}: {glob:?}: {why}", rule.name))
            })?);
            rule_of.push(index);
        }
    }
    Ok((
        set.build()
            .map_err(|e| Error::new(format!("secret rules: {e}")))?,
        rule_of,
    ))
}

/// The name of the first rule that finds a secret in this file. `rules` are the rules for its path.
fn secret_in(content: &Content, rules: &[usize]) -> std::io::Result<Option<&'static str>> {
    let whole = content.len() <= SCANNED;
    // A larger file is checked as text only if its path is suspicious.
    let rules = rules
        .iter()
        .map(|rule| &RULES[*rule])
        .filter(|rule| whole || rule.paths != EVERYWHERE);
    let mut rules = rules.peekable();
    if whole || rules.peek().is_some() {
        let mut bytes = vec![0; content.len().min(HEAD) as usize];
        content.read_exact_at(0, &mut bytes)?;
        if whole && der::is_private_key(&bytes) {
            return Ok(Some(PRIVATE_KEY));
        }
        let text = keys::text(&bytes);
        if let Some(rule) = rules.find(|rule| (rule.is_secret)(&text)) {
            return Ok(Some(rule.name));
        }
    }
    if whole {
        return Ok(None);
    }
    let is_key = keys::large_file_holds_private_key(content)?
        || content.len() <= der::LIMIT
            && starts_der(content)?
            && der::is_private_key(&content.to_vec(der::LIMIT)?);
    Ok(is_key.then_some(PRIVATE_KEY))
}

/// Whether the file starts like DER, so that it must be read completely.
fn starts_der(content: &Content) -> std::io::Result<bool> {
    let mut start = [0; 2];
    content.read_exact_at(0, &mut start)?;
    Ok(start[0] == 0x30 && start[1] >= 0x80)
}

fn refusal(mut found: Vec<Secret>) -> Error {
    found.sort();
    found.dedup();
    let named = |rule| {
        let of_rule = found
            .iter()
            .filter(|secret| secret.rule == rule)
            .map(|secret| match &secret.attribute {
                Some(name) => format!("{} (attribute {})", show(&secret.path), show(name)),
                None => show(&secret.path),
            });
        of_rule.collect::<Paths>()
    };
    let lists = rules::NAMES
        .iter()
        .map(|rule| (rule, named(*rule)))
        .filter(|(_, paths)| !paths.is_empty());
    let lists: Vec<String> = lists
        .map(|(rule, paths)| format!("{rule}: {paths}"))
        .collect();
    let mut paths: Vec<&[u8]> = found.iter().map(|secret| &*secret.path).collect();
    paths.sort_unstable();
    paths.dedup();
    let globs: Paths = paths
        .iter()
        .map(|path| format!("{:?}", as_glob(path)))
        .collect();
    let more = if globs.named().len() < paths.len() {
        format!(" and {} more", paths.len() - globs.named().len())
    } else {
        String::new()
    };
    Error::new(format!("the image would hold secrets: {}", lists.join("; "))).hint(format!(
        "leave them out of the sources ([[file]] absent = true removes a path) and pass them to the server in another way: as a systemd credential or on a volume;\n\
         or, if they are not secrets, write into image.toml{more}:\n  [scrub]\n  keep = [{}]",
        globs.named().join(", ")
    ))
}
