//! Detects secrets in a text: the value of a key, a word after another word, the password of a URL.

pub fn anything(_: &str) -> bool {
    true
}

/// Whether the text has an AWS access key id together with a secret.
pub fn holds_aws_key(text: &str) -> bool {
    let key_id = |(at, prefix): (usize, &str)| {
        text[at + prefix.len()..]
            .bytes()
            .take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            .count()
            == 16
    };
    let has_id =
        || text.match_indices("AKIA").any(key_id) || text.match_indices("ASIA").any(key_id);
    let lower = || text.to_ascii_lowercase();
    // The cheap test first: nearly all files end here.
    (text.contains("AKIA") || text.contains("ASIA"))
        && has_id()
        && (lower().contains("secret_access_key") || lower().contains("secretaccesskey"))
}

/// Lines that are neither empty nor comments.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
}

/// Pairs of adjacent words within a line.
pub fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
    lines(text).flat_map(|line| line.split_whitespace().zip(line.split_whitespace().skip(1)))
}

/// Whether one of these keys has a value, in `key = value`, `key: value` or JSON.
pub fn valued(text: &str, keys: &[&str]) -> bool {
    // JSON may be on one line, so each of its pairs is checked like a line.
    text.split(['\n', ',', '{', '}'])
        .map(str::trim)
        .filter(|part| !part.starts_with(['#', ';']))
        .any(|part| {
            let Some((key, value)) = part.split_once(['=', ':']) else {
                return false;
            };
            let bare = |text: &str| text.trim().trim_matches(['"', '\'']).trim().to_owned();
            keys.contains(&bare(key).as_str()) && is_literal(&bare(value))
        })
}

/// Whether a value is a literal: not empty, no reference to a variable or a file, no placeholder.
pub fn is_literal(value: &str) -> bool {
    !value.is_empty()
        && !value.starts_with(['$', '/', '<', '{', '%', '['])
        && !["null", "None", "~", "''", "\"\""].contains(&value)
}

pub fn npm_token(text: &str) -> bool {
    lines(text).any(|line| match line.split_once('=') {
        Some((key, value)) => {
            ["_authToken", "_auth", "_password"]
                .iter()
                .any(|end| key.trim().ends_with(end))
                && is_literal(value.trim())
        }
        None => false,
    })
}

/// Whether the line has `https://user:password@host`.
pub fn url_with_password(line: &str) -> bool {
    line.match_indices("://").any(|(at, _)| {
        let authority = line[at + 3..]
            .split(['/', ' ', '"', '\'', '?', ';'])
            .next()
            .unwrap_or_default();
        match authority
            .rsplit_once('@')
            .and_then(|(user, _)| user.split_once(':'))
        {
            Some((_, password)) => is_literal(password),
            None => false,
        }
    })
}

/// Whether a line is an account whose password is neither hashed nor locked nor stored elsewhere
/// (crypt(5)).
pub fn unhashed(line: &str) -> bool {
    let Some(password) = line.split(':').nth(1) else {
        return false;
    };
    let password = password.trim_start_matches(['!', '*']);
    let des = password.len() == 13
        && password
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"./".contains(&b));
    !(password.is_empty() || password == "x" || password.starts_with(['$', '_']) || des)
}

/// Whether the line is like `DB_PASSWORD=hunter2`, with or without `export`.
pub fn secret_variable(line: &str) -> bool {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let Some((name, value)) = line.split_once('=') else {
        return false;
    };
    let name = name.trim().to_ascii_uppercase();
    let secret = [
        "PASSWORD",
        "PASSWD",
        "SECRET",
        "SECRET_KEY",
        "TOKEN",
        "API_KEY",
        "APIKEY",
        "SECRET_ACCESS_KEY",
    ];
    secret
        .iter()
        .any(|end| name == *end || name.ends_with(&format!("_{end}")))
        && is_literal(value.trim().trim_matches(['"', '\'']))
}

/// Whether a line starts with one of these words, followed by a literal value.
pub fn first_word(text: &str, keys: &[&str]) -> bool {
    lines(text).any(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|key| keys.contains(&key))
            && words
                .next()
                .is_some_and(|value| is_literal(value.trim_matches(['"', '\'', ';'])))
    })
}

/// Whether one of these words is followed by a literal value, anywhere in a line.
pub fn any_word(text: &str, keys: &[&str]) -> bool {
    words(text).any(|(key, value)| {
        keys.contains(&key.trim_start_matches(':'))
            && is_literal(value.trim_matches(['"', '\'', ';']))
    })
}

/// Whether one of these keys has a base64 key as its value: `key = value`, `key: value`, `"key":
/// "value"`, `key "value";`.
pub fn holds_base64(text: &str, keys: &[&str]) -> bool {
    /// Minimum number of digits; shorter values are names and numbers.
    const SHORTEST: usize = 16;
    let is_value = |rest: &str| {
        let value = rest.trim_start_matches(|c: char| c.is_whitespace() || "=:\"'".contains(c));
        let digits = value
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b))
            .count();
        // A longer word that starts like the key has no separator here.
        digits >= SHORTEST
            && value.len() < rest.len()
            && value[digits..]
                .trim_matches(['"', '\'', ' ', '\t', '\r'])
                .is_empty()
    };
    let mut parts = lines(text)
        .filter(|line| !line.starts_with("//"))
        .flat_map(|line| line.split(['{', '}', ',', ';']));
    parts.any(|part| {
        let part = part.trim().trim_start_matches(['"', '\'']);
        keys.iter()
            .any(|key| part.strip_prefix(key).is_some_and(is_value))
    })
}

/// Whether a line has this many fields between colons, none of them empty.
pub fn fields(text: &str, fields: usize) -> bool {
    lines(text).any(|line| {
        line.split(':')
            .take(fields)
            .filter(|field| !field.trim().is_empty())
            .count()
            == fields
    })
}

/// Whether a line has this many words.
pub fn has_words(text: &str, count: usize) -> bool {
    lines(text).any(|line| line.split_whitespace().count() >= count)
}

/// Whether a quoted text that is not empty follows this word, as in `$dbpass='x'`.
pub fn quoted_after(text: &str, word: &str) -> bool {
    /// The value in WordPress' example file.
    const PLACEHOLDER: &str = "password_here";
    text.match_indices(word).any(|(at, word)| {
        let rest = text[at + word.len()..].trim_start_matches([' ', '\t', ',', '=']);
        let value = rest
            .strip_prefix(['\'', '"'])
            .and_then(|value| value.split(['\'', '"', '\n']).next())
            .unwrap_or_default();
        !value.is_empty() && value != PLACEHOLDER
    })
}
