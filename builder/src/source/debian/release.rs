//! A suite's Release file: the fields that decide whether and how its packages can be used. apt
//! checks its signature.

use crate::definition::values;

/// Fields of a Release file, or of the signed text in an InRelease file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// Publication time, seconds since 1970.
    pub date: Option<i64>,
    /// Expiry time, seconds since 1970.
    pub valid_until: Option<i64>,
    /// The publisher, for example `Debian`.
    pub origin: String,
    /// Components; empty if the file lists none.
    pub components: Vec<String>,
    /// Architectures; empty if the file lists none.
    pub architectures: Vec<String>,
}

impl Release {
    /// Parses the fields before the file lists.
    pub fn parse(bytes: &[u8]) -> Release {
        let text = String::from_utf8_lossy(bytes);
        let mut release = Release::default();
        let words = |value: &str| value.split_whitespace().map(str::to_owned).collect();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name {
                "Date" => release.date = date(value),
                "Valid-Until" => release.valid_until = date(value),
                "Origin" => release.origin = value.to_owned(),
                // Some security archives write updates/main.
                "Components" => {
                    release.components = value
                        .split_whitespace()
                        .map(|word| word.rsplit('/').next().unwrap_or(word).to_owned())
                        .collect()
                }
                "Architectures" => release.architectures = words(value),
                "MD5Sum" | "SHA1" | "SHA256" | "SHA512" => break,
                _ => {}
            }
        }
        release
    }
}

/// Parses `Sat, 14 Nov 2026 09:30:12 UTC` (RFC 5322 without a numeric zone, the usual form in
/// archives) into seconds since 1970.
fn date(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "UTC" | "GMT" | "Z" | "+0000"] = words[..] else {
        return None;
    };
    let month = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]
    .iter()
    .position(|name| *name == month)? as i64
        + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let time: Vec<i64> = time
        .split(':')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let [hour, minute, second] = time[..] else {
        return None;
    };
    if !(1970..=9999).contains(&year)
        || !(1..=31).contains(&day)
        || !(0..24).contains(&hour)
        || !(0..60).contains(&minute)
        || !(0..=60).contains(&second)
    {
        return None;
    }
    let days = values::days_since_1970(year, month, day);
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dates_in_debians_format() {
        assert_eq!(date(" Sat, 01 Jan 2000 00:00:00 UTC"), Some(946_684_800));
        assert_eq!(date("Thu, 29 Feb 2024 12:34:56 UTC"), Some(1_709_210_096));
        assert_eq!(date("Thu,  5 Feb 2024  2:34:56 UTC"), Some(1_707_100_496));
        assert_eq!(date("Tue, 14 Nov 2023 22:13:20 +0000"), Some(1_700_000_000));
        for bad in [
            "",
            "Sat, 01 Foo 2000 00:00:00 UTC",
            "Sat, 01 Jan 2000 00:00 UTC",
            "Sat, 01 Jan 2000 00:00:00 CET",
            "Sat, 99 Jan 2000 00:00:00 UTC",
        ] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    #[test]
    fn fields_are_read_from_the_signed_text() {
        let text = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nDate: Sat, 01 Jan 2000 00:00:00 UTC\nValid-Until: Sat, 08 Jan 2000 00:00:00 UTC\n\
            Architectures: all amd64\nComponents: updates/main updates/contrib\nMD5Sum:\n 0 1 Date: x\nDate: Sat, 01 Jan 2005 00:00:00 UTC\n";
        let release = Release::parse(text);
        assert_eq!(
            (release.date, release.valid_until),
            (Some(946_684_800), Some(946_684_800 + 7 * 86_400))
        );
        assert_eq!(
            (
                release.origin.as_str(),
                release.components.join(" ").as_str(),
                release.architectures.len()
            ),
            ("Debian", "main contrib", 2)
        );
        assert_eq!(
            Release::parse(b"<html>Date: today</html>"),
            Release::default()
        );
    }
}
