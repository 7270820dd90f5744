//! Secrets that no image may hold: private keys, keys that machines share, cloud credentials, shell
//! histories and passwords in plain text.
//!
//! A path alone rarely proves a secret, and words alone never do: most rules ask for both, so that
//! documentation and empty examples pass. Extended attributes are looked at as files are.

mod der;
mod keys;
mod rules;
mod text;

use globset::{GlobSet, GlobSetBuilder};

use self::rules::{EVERYWHERE, PRIVATE_KEY, RULES};
use super::keep::{Keep, as_glob, as_path, compile};
use crate::error::{Error, Result};
use crate::term::path_list::Paths;
use crate::tree::{Content, Kind, Meta, Tree, show};

pub use self::rules::paths_by_name;

/// Files up to this size are looked at as one text by every rule, bytes: keys and credentials are
/// small. In larger ones keys are searched for.
const SCANNED: u64 = 64 << 10;
/// Of larger files whose path alone is suspicious (a history, a file of accounts), this much is
/// looked at, bytes.
const HEAD: u64 = 4 << 20;
/// So many files are looked at together.
const BATCH: usize = 2048;

/// Path and content.
type File = (Vec<u8>, Content);

/// A secret that was found.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Secret {
    rule: &'static str,
    path: Vec<u8>,
    /// The extended attribute that holds it; `None`: the file's content.
    attribute: Option<Vec<u8>>,
}

/// Fails when there is a secret whose path is not kept, with each rule and its paths.
pub fn refuse(tree: &Tree, keep: &Keep) -> Result<()> {
    let rules = compile_rules()?;
    let mut found: Vec<Secret> = Vec::new();
    let mut in_attributes: Vec<Secret> = Vec::new();
    let mut failed = None;
    let mut batch = Vec::with_capacity(BATCH);
    let mut look = |batch: &mut Vec<File>| {
        let secrets = look(&rules, batch);
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
            look(&mut batch);
        }
    });
    look(&mut batch);
    found.extend(in_attributes);
    match failed {
        Some(error) => Err(error),
        None if found.is_empty() => Ok(()),
        None => Err(refusal(found)),
    }
}

/// Secrets in an entry's attributes. Every value is small, and is looked at as text and as a key.
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

/// Looks at files on all cores; what is in each, in their order.
fn look(
    (globs, rule_of): &(GlobSet, Vec<usize>),
    files: &[File],
) -> Vec<std::io::Result<Option<&'static str>>> {
    let secret = |(path, content): &File| {
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
                .map(|_| Err(std::io::Error::other("looking for secrets failed")))
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
            set.add(compile(glob).map_err(|why| {
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

/// The name of the rule that finds a secret in this file, if one does. `rules` are those that its
/// path calls for.
fn secret_in(content: &Content, rules: &[usize]) -> std::io::Result<Option<&'static str>> {
    let whole = content.len() <= SCANNED;
    // Of what is larger, only what its path makes suspicious is worth a look as a text.
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

/// Whether it is worth being read whole to see if it is a key.
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
        "leave them out of the sources ([[file]] absent = true removes a path) and hand them to the server another way: a systemd credential, a volume;\n\
         or, where they are no secrets after all, write into image.toml{more}:\n  [scrub]\n  keep = [{}]",
        globs.named().join(", ")
    ))
}
