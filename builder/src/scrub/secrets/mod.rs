//! Secrets that no image may hold: private keys, cloud credentials, shell histories and passwords in plain text.
//!
//! A path alone rarely proves a secret, and words alone never do: most rules ask for both, so that documentation and empty examples pass.

mod der;
mod keys;

use globset::{GlobSet, GlobSetBuilder};

use super::keep::{Keep, as_path, compile};
use crate::error::{Error, Result};
use crate::tree::{Content, Kind, Tree, show};

/// Files up to this size are looked at as one text by every rule, bytes: keys and credentials are small. In larger ones keys are searched for.
const SCANNED: u64 = 64 << 10;
/// Of larger files whose path alone is suspicious (a history, a file of accounts), this much is looked at, bytes.
const HEAD: u64 = 4 << 20;
/// The rules of this path are for every file.
const EVERYWHERE: &[&str] = &["/**"];
/// So many files are looked at together.
const BATCH: usize = 2048;
/// Paths that a message names for one rule; the rest is counted.
const NAMED: usize = 20;

/// Path and content.
type File = (Vec<u8>, Content);

/// A rule: which files, and what in them is a secret.
struct Rule {
    name: &'static str,
    paths: &'static [&'static str],
    is_secret: fn(&str) -> bool,
}

const PRIVATE_KEY: &str = "private-key";
const CLOUD: &str = "cloud-credentials";
const HISTORY: &str = "shell-history";
const PASSWORD: &str = "plain-text-password";

const RULES: &[Rule] = &[
    Rule { name: PRIVATE_KEY, paths: EVERYWHERE, is_secret: keys::holds_private_key },
    Rule { name: PRIVATE_KEY, paths: &["/**/.gnupg/private-keys-v1.d/*", "/**/.gnupg/secring.gpg"], is_secret: anything },
    Rule { name: CLOUD, paths: EVERYWHERE, is_secret: |text| text.contains("\"service_account\"") && text.contains("\"private_key\"") },
    Rule { name: CLOUD, paths: &["/{etc,root,home,srv,opt,var,usr/local}/**", "/**/.aws/*"], is_secret: holds_aws_key },
    Rule {
        name: CLOUD,
        paths: &["/**/gcloud/{credentials.db,access_tokens.db,application_default_credentials.json}", "/**/gcloud/legacy_credentials/**"],
        is_secret: anything,
    },
    Rule { name: CLOUD, paths: &["/**/.azure/{accessTokens.json,msal_token_cache.*,service_principal_entries.*}"], is_secret: anything },
    Rule {
        name: CLOUD,
        paths: &["/**/.docker/config.json", "/**/.dockercfg", "/**/containers/auth.json"],
        is_secret: |text| valued(text, &["auth", "identitytoken"]),
    },
    Rule {
        name: CLOUD,
        paths: &["/**/.kube/config", "/etc/kubernetes/*.conf", "/**/*.kubeconfig"],
        is_secret: |text| valued(text, &["client-key-data", "token", "password"]),
    },
    Rule { name: CLOUD, paths: &["/**/.git-credentials", "/**/.config/git/credentials"], is_secret: |text| text.lines().any(url_with_password) },
    Rule { name: CLOUD, paths: &["/**/.npmrc"], is_secret: |text| npm_token(text) },
    Rule { name: CLOUD, paths: &["/**/.pypirc"], is_secret: |text| valued(text, &["password"]) },
    Rule { name: CLOUD, paths: &["/**/.vault-token"], is_secret: anything },
    Rule { name: CLOUD, paths: &["/**/{hosts.yml,hosts.yaml}"], is_secret: |text| valued(text, &["oauth_token"]) },
    Rule { name: CLOUD, paths: &["/**/credentials.tfrc.json", "/**/.terraformrc", "/**/.cargo/credentials*"], is_secret: |text| valued(text, &["token"]) },
    Rule {
        name: HISTORY,
        paths: &[
            "/**/.{bash,zsh,sh,ash,ksh,python,mysql,mariadb,psql,sqlite,node_repl,rediscli,lua,irb}_history",
            "/**/.{history,histfile,lesshst,viminfo}",
            "/**/fish_history",
        ],
        is_secret: anything,
    },
    Rule { name: PASSWORD, paths: &["/etc/{shadow,gshadow,passwd}"], is_secret: |text| text.lines().any(unhashed) },
    Rule {
        name: PASSWORD,
        paths: &["/**/.netrc", "/etc/apt/auth.conf", "/etc/apt/auth.conf.d/*"],
        is_secret: |text| words(text).any(|pair| pair.0 == "password"),
    },
    Rule { name: PASSWORD, paths: &["/**/.pgpass"], is_secret: |text| lines(text).any(|line| line.split(':').count() >= 5) },
    Rule { name: PASSWORD, paths: &["/**/.my.cnf", "/etc/mysql/debian.cnf"], is_secret: |text| valued(text, &["password"]) },
    Rule { name: PASSWORD, paths: &["/etc/NetworkManager/system-connections/*"], is_secret: |text| valued(text, &["psk", "password", "private-key-password"]) },
    Rule {
        name: PASSWORD,
        paths: &["/etc/wpa_supplicant/*.conf", "/etc/hostapd/*.conf"],
        is_secret: |text| valued(text, &["psk", "password", "wpa_passphrase"]),
    },
    Rule { name: PASSWORD, paths: &["/etc/ppp/{chap,pap}-secrets"], is_secret: |text| lines(text).any(|line| line.split_whitespace().count() >= 3) },
    Rule {
        name: PASSWORD,
        paths: &["/etc/apt/sources.list", "/etc/apt/sources.list.d/*", "/etc/apt/apt.conf", "/etc/apt/apt.conf.d/*", "/**/.git/config", "/etc/pip.conf"],
        is_secret: |text| lines(text).any(url_with_password),
    },
    Rule { name: PASSWORD, paths: &["/etc/fstab"], is_secret: |text| lines(text).any(|line| line.contains("password=") || line.contains("pass=")) },
    Rule { name: PASSWORD, paths: &["/etc/environment", "/**/.env", "/etc/environment.d/*"], is_secret: |text| lines(text).any(secret_variable) },
];

/// Fails when there is a secret whose path is not kept, with each rule and its paths.
pub fn refuse(tree: &Tree, keep: &Keep) -> Result<()> {
    let rules = compile_rules()?;
    let mut found: Vec<(&'static str, Vec<u8>)> = Vec::new();
    let mut failed = None;
    let mut batch = Vec::with_capacity(BATCH);
    let mut look = |batch: &mut Vec<File>| {
        let secrets = look(&rules, batch);
        for (file, secret) in batch.drain(..).zip(secrets) {
            match secret {
                Ok(rule) => found.extend(rule.map(|rule| (rule, file.0))),
                Err(e) => failed = failed.take().or(Some(Error::new(format!("{}: {e}", show(&file.0))))),
            }
        }
    };
    tree.visit(&mut |path, id| {
        let Kind::File(content) = &tree.node(id).kind else { return };
        if content.is_empty() || keep.holds(path) {
            return;
        }
        batch.push((path.to_vec(), content.clone()));
        if batch.len() == BATCH {
            look(&mut batch);
        }
    });
    look(&mut batch);
    match failed {
        Some(error) => Err(error),
        None if found.is_empty() => Ok(()),
        None => Err(refusal(found)),
    }
}

/// Looks at files on all cores; what is in each, in their order.
fn look((globs, rule_of): &(GlobSet, Vec<usize>), files: &[File]) -> Vec<std::io::Result<Option<&'static str>>> {
    let secret = |(path, content): &File| {
        let rules: Vec<usize> = globs.matches(as_path(path)).into_iter().map(|glob| rule_of[glob]).collect();
        secret_in(content, &rules)
    };
    let share = files.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = files.chunks(share).map(|files| (files.len(), scope.spawn(move || files.iter().map(secret).collect::<Vec<_>>()))).collect();
        let failed = |count| (0..count).map(|_| Err(std::io::Error::other("looking for secrets failed"))).collect();
        threads.into_iter().flat_map(|(count, thread)| thread.join().unwrap_or_else(|_| failed(count))).collect()
    })
}

fn compile_rules() -> Result<(GlobSet, Vec<usize>)> {
    let mut set = GlobSetBuilder::new();
    let mut rule_of = Vec::new();
    for (index, rule) in RULES.iter().enumerate() {
        for glob in rule.paths {
            set.add(compile(glob).map_err(|why| Error::new(format!("secret rule {}: {glob:?}: {why}", rule.name)))?);
            rule_of.push(index);
        }
    }
    Ok((set.build().map_err(|e| Error::new(format!("secret rules: {e}")))?, rule_of))
}

/// The name of the rule that finds a secret in this file, if one does. `rules` are those that its path calls for.
fn secret_in(content: &Content, rules: &[usize]) -> std::io::Result<Option<&'static str>> {
    let whole = content.len() <= SCANNED;
    // Of what is larger, only what its path makes suspicious is worth a look as a text.
    let rules = rules.iter().map(|rule| &RULES[*rule]).filter(|rule| whole || rule.paths != EVERYWHERE);
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
        || content.len() <= der::LIMIT && starts_der(content)? && der::is_private_key(&content.to_vec(der::LIMIT)?);
    Ok(is_key.then_some(PRIVATE_KEY))
}

/// Whether it is worth being read whole to see if it is a key.
fn starts_der(content: &Content) -> std::io::Result<bool> {
    let mut start = [0; 2];
    content.read_exact_at(0, &mut start)?;
    Ok(start[0] == 0x30 && start[1] >= 0x80)
}

fn refusal(mut found: Vec<(&'static str, Vec<u8>)>) -> Error {
    found.sort();
    found.dedup();
    let mut message = String::from("the image would hold secrets:");
    for rule in [CLOUD, PASSWORD, PRIVATE_KEY, HISTORY] {
        let paths: Vec<String> = found.iter().filter(|hit| hit.0 == rule).map(|hit| show(&hit.1)).collect();
        if !paths.is_empty() {
            let more = if paths.len() > NAMED { format!(" and {} more", paths.len() - NAMED) } else { String::new() };
            message.push_str(&format!(" {rule}: {}{more};", paths[..paths.len().min(NAMED)].join(", ")));
        }
    }
    let example = found.first().map(|hit| show(&hit.1)).unwrap_or_default();
    Error::new(message.trim_end_matches(';').to_owned()).hint(format!(
        "take them out of the sources and hand them to the server another way (a systemd credential, a volume),\n\
         or, where it is no secret after all, write into image.toml:\n  [scrub]\n  keep = [{example:?}]"
    ))
}

fn anything(_: &str) -> bool {
    true
}

/// An access key's id with a secret beside it.
fn holds_aws_key(text: &str) -> bool {
    let key_id = |(at, prefix): (usize, &str)| text[at + prefix.len()..].bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit()).count() == 16;
    let has_id = || text.match_indices("AKIA").any(key_id) || text.match_indices("ASIA").any(key_id);
    let lower = || text.to_ascii_lowercase();
    // Cheap first: nearly all files stop here.
    (text.contains("AKIA") || text.contains("ASIA")) && has_id() && (lower().contains("secret_access_key") || lower().contains("secretaccesskey"))
}

/// Lines that say something: no comment, not empty.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
}

/// Each word with the one after it, line by line.
fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
    lines(text).flat_map(|line| line.split_whitespace().zip(line.split_whitespace().skip(1)))
}

/// Whether one of these keys has a value, in `key = value`, `key: value` or JSON.
fn valued(text: &str, keys: &[&str]) -> bool {
    // JSON may stand on one line: each of its pairs is looked at like a line.
    text.split(['\n', ',', '{', '}']).map(str::trim).filter(|part| !part.starts_with(['#', ';'])).any(|part| {
        let Some((key, value)) = part.split_once(['=', ':']) else { return false };
        let bare = |text: &str| text.trim().trim_matches(['"', '\'']).trim().to_owned();
        keys.contains(&bare(key).as_str()) && is_literal(&bare(value))
    })
}

/// A value that stands for itself: not empty, no reference to a variable or a file, no placeholder.
fn is_literal(value: &str) -> bool {
    !value.is_empty() && !value.starts_with(['$', '/', '<', '{', '%', '[']) && !["null", "None", "~", "''", "\"\""].contains(&value)
}

fn npm_token(text: &str) -> bool {
    lines(text).any(|line| match line.split_once('=') {
        Some((key, value)) => ["_authToken", "_auth", "_password"].iter().any(|end| key.trim().ends_with(end)) && is_literal(value.trim()),
        None => false,
    })
}

/// `https://user:password@host`.
fn url_with_password(line: &str) -> bool {
    line.match_indices("://").any(|(at, _)| {
        let authority = line[at + 3..].split(['/', ' ', '"', '\'', '?', ';']).next().unwrap_or_default();
        match authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')) {
            Some((_, password)) => is_literal(password),
            None => false,
        }
    })
}

/// An account whose password is neither hashed nor locked nor elsewhere (crypt(5)).
fn unhashed(line: &str) -> bool {
    let Some(password) = line.split(':').nth(1) else { return false };
    let password = password.trim_start_matches(['!', '*']);
    let des = password.len() == 13 && password.bytes().all(|b| b.is_ascii_alphanumeric() || b"./".contains(&b));
    !(password.is_empty() || password == "x" || password.starts_with(['$', '_']) || des)
}

/// `DB_PASSWORD=hunter2`, with or without `export`.
fn secret_variable(line: &str) -> bool {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let Some((name, value)) = line.split_once('=') else { return false };
    let name = name.trim().to_ascii_uppercase();
    let secret = ["PASSWORD", "PASSWD", "SECRET", "SECRET_KEY", "TOKEN", "API_KEY", "APIKEY", "SECRET_ACCESS_KEY"];
    secret.iter().any(|end| name == *end || name.ends_with(&format!("_{end}"))) && is_literal(value.trim().trim_matches(['"', '\'']))
}
