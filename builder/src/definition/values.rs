//! Values inside the strings of a definition: sizes, durations, dates, names. The error of each
//! function is a phrase with a remedy in parentheses.

use adamant_contract::policy::START_PLACES;

use super::{Compression, Optimize};

/// Bytes: a whole number, optionally with K, M, G or T (powers of 1024).
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size (use for example 512M or 2G)");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = whole(digits).ok_or_else(wrong)?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is larger than any disk (use 16T or less)"))
}

/// Seconds: a whole number with s, m or h.
pub fn duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a duration (use for example 10s, 5m or 1h)");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    whole(digits)
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(wrong)
}

/// A number of digits only: no sign, no space, no underscore.
fn whole(digits: &str) -> Option<u64> {
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten()
}

/// Checks an IMAGE_ID.
pub fn id(text: &str) -> Result<(), String> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if !text.bytes().all(known)
        || !text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
    {
        return Err(format!(
            "id {text:?} is not an image id (use a-z 0-9 . _ -, starting with a letter or digit)"
        ));
    }
    Ok(())
}

/// Checks an IMAGE_VERSION in the version format of UAPI.10. `_` separates id and version in
/// labels, and `+` starts the boot counter in names of boot entries (UAPI.1), so a version has
/// neither.
pub fn version(text: &str) -> Result<(), String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b".~^-".contains(&b);
    if !text.bytes().all(known) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!(
            "version {text:?} is not a version (use A-Z a-z 0-9 . ~ ^ -, starting with a letter or digit, for example 1.4.0)"
        ));
    }
    Ok(())
}

/// Checks that the longest partition label, `ID_VERSION_verity`, fits: a label has room for 36
/// UTF-16 units (UEFI 2.10, 5.3.3).
pub fn label(id: &str, version: &str) -> Result<(), String> {
    let length = format!("{id}_{version}_verity").encode_utf16().count();
    if length > 36 {
        return Err(format!(
            "label {:?} has {length} characters, a partition label has room for 36 (shorten id or version)",
            format!("{id}_{version}_verity")
        ));
    }
    Ok(())
}

/// The value of `[root] compression`.
pub fn compression(text: &str) -> Result<Compression, String> {
    if let Some(level) = text.strip_prefix("zstd:") {
        return match whole(level) {
            Some(level @ 1..=22) => Ok(Compression::Zstd(level as i32)),
            _ => Err(format!(
                "compression {text:?}: {level:?} is not a level (use 1 to 22)"
            )),
        };
    }
    Ok(match text {
        "auto" => Compression::Auto,
        "none" => Compression::None,
        "lz4" => Compression::Lz4,
        "lz4hc" => Compression::Lz4hc,
        "zstd" => Compression::Zstd(super::ZSTD_LEVEL),
        _ => {
            return Err(format!(
                "compression {text:?} is not known (use auto, none, lz4, lz4hc, zstd or zstd:LEVEL)"
            ));
        }
    })
}

/// The value of `[root] optimize`.
pub fn optimize(text: &str) -> Result<Optimize, String> {
    match text {
        "updates" => Ok(Optimize::Updates),
        "size" => Ok(Optimize::Size),
        _ => Err(format!(
            "optimize {text:?} is not known (use updates or size)"
        )),
    }
}

/// The value of `[root] cluster`, bytes.
pub fn cluster(text: &str) -> Result<u32, String> {
    match size(text).map_err(|why| format!("cluster {why}"))? {
        bytes @ 4096..=1_048_576 if bytes.is_power_of_two() => Ok(bytes as u32),
        _ => Err(format!(
            "cluster {text:?} is not a power of two from 4K to 1M (use for example 64K)"
        )),
    }
}

/// Permission bits in octal.
pub fn mode(text: &str) -> Result<u16, String> {
    let octal =
        !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u16::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o7777) if octal => Ok(mode),
        _ => Err(format!(
            "mode {text:?} is not octal permission bits (use for example \"0640\")"
        )),
    }
}

/// Checks an absolute path in the image: no `.`, `..`, empty component or slash at the end.
pub fn absolute(text: &str) -> Result<(), String> {
    let parts_ok = text.starts_with('/')
        && text.len() > 1
        && text.len() <= 4095
        && text[1..].split('/').all(|part| {
            !part.is_empty() && part != "." && part != ".." && part.len() <= crate::tree::NAME_MAX
        })
        && !text.contains('\0');
    if !parts_ok {
        return Err(format!(
            "{text:?} is not a path in the image (write an absolute path without ., .., // or a slash at the end)"
        ));
    }
    Ok(())
}

/// Checks a directory from which programs take instructions at start.
pub fn start_place(text: &str) -> Result<(), String> {
    if START_PLACES.contains(&text) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is no place that a program reads at start (use {})",
        START_PLACES.join(", ")
    ))
}

/// Checks a name that becomes one argument of another program: no option, no space.
pub fn argument(what: &str, text: &str) -> Result<(), String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._+:=/*-".contains(&b);
    if text.is_empty() || text.len() > 255 || text.starts_with('-') || !text.bytes().all(known) {
        return Err(format!(
            "{text:?} is not {what} (use letters, digits and . _ + -)"
        ));
    }
    Ok(())
}

/// Checks a line of text: no control characters, at most `limit` bytes.
pub fn line(what: &str, text: &str, limit: usize) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err(format!(
            "{what} contains a line break or another control character (write one line)"
        ));
    }
    if text.len() > limit {
        return Err(format!(
            "{what} has {} bytes, but at most {limit} are allowed",
            text.len()
        ));
    }
    Ok(())
}

/// Checks the name of a kernel module.
pub fn module(text: &str) -> Result<(), String> {
    if text.is_empty()
        || text.len() > 64
        || !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    {
        return Err(format!(
            "{text:?} is not a module name (write it without path and .ko, for example \"virtio_net\")"
        ));
    }
    Ok(())
}

/// Kernel arguments that choose the root. The builder writes them; a second one would contradict
/// it.
const OWN_ARGUMENTS: &[&str] = &[
    "roothash",
    "usrhash",
    "systemd.verity",
    "systemd.verity_root_data",
    "systemd.verity_root_hash",
    "root",
    "rdinit",
    "initrd",
];

/// Checks arguments for the kernel command line. The kernel takes 2,048 bytes on x86; the builder's
/// own arguments need some of them.
pub fn cmdline(text: &str) -> Result<(), String> {
    line("cmdline", text, 1536)?;
    if text.matches('"').count() % 2 == 1 {
        return Err("cmdline has a quote that is not closed".to_owned());
    }
    let key = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
    match text
        .split_whitespace()
        .map(key)
        .find(|key| OWN_ARGUMENTS.contains(&key.as_str()))
    {
        Some(key) => Err(format!(
            "cmdline: `{key}=` is written by the builder (leave it out)"
        )),
        None => Ok(()),
    }
}

/// Checks a time in the snapshot archive.
pub fn snapshot(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| bytes[from..to].iter().all(u8::is_ascii_digit);
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' || !digits(0, 8) || !digits(9, 15)
    {
        return Err(format!(
            "snapshot {text:?} is not a time of the archive (use for example \"20261101T000000Z\")"
        ));
    }
    Ok(())
}

/// Seconds since 1970, from an integer, a TOML date, or a string with either.
pub fn epoch(value: &toml::Value) -> Result<i64, String> {
    let wrong = || {
        "epoch is not a time (use seconds since 1970 or a date, for example 2026-11-01T00:00:00Z)"
            .to_owned()
    };
    let seconds = match value {
        toml::Value::Integer(seconds) => *seconds,
        toml::Value::Datetime(date) => from_date(date).ok_or_else(wrong)?,
        toml::Value::String(text) => match whole(text) {
            Some(seconds) => i64::try_from(seconds).map_err(|_| wrong())?,
            None => text
                .parse()
                .ok()
                .as_ref()
                .and_then(from_date)
                .ok_or_else(wrong)?,
        },
        _ => return Err(wrong()),
    };
    // Other tools cannot print years after 9999.
    if !(0..=253_402_300_799).contains(&seconds) {
        return Err(wrong());
    }
    Ok(seconds)
}

/// A date with or without a time. Without an offset it is UTC, so that the image does not depend on
/// the build machine's time zone.
fn from_date(moment: &toml::value::Datetime) -> Option<i64> {
    let date = moment.date?;
    let days = days_since_1970(
        i64::from(date.year),
        i64::from(date.month),
        i64::from(date.day),
    );
    let time = moment.time.map_or(0, |t| {
        i64::from(t.hour) * 3600 + i64::from(t.minute) * 60 + i64::from(t.second.unwrap_or(0))
    });
    let offset = match moment.offset {
        Some(toml::value::Offset::Custom { minutes }) => i64::from(minutes) * 60,
        _ => 0,
    };
    Some(days * 86400 + time - offset)
}

/// Days of the proleptic Gregorian calendar. Years are counted from March, so that a leap day is
/// the last day of its year.
pub(crate) fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

/// Seconds since 1970 for people: RFC 3339 in UTC.
pub fn format_time(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The other way round: eras of 400 years, in each of which the calendar repeats.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let of_era_year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 {
        (month + 3, 400 * era + of_era_year)
    } else {
        (month - 9, 400 * era + of_era_year + 1)
    };
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_never_wrap() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in [
            "",
            "M",
            "2Q",
            "-1M",
            "+1M",
            "1 M",
            "1.5G",
            "1MM",
            "0x10",
            "é",
            "18446744073709551616",
            "99999999999T",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dates_without_an_offset_are_utc() {
        let of = |text: &str| epoch(&toml::Value::String(text.to_owned()));
        assert_eq!(of("1970-01-01"), Ok(0));
        assert_eq!(of("2000-02-29T12:00:00Z"), Ok(951_825_600));
        assert_eq!(of("2023-11-14T22:13:20Z"), Ok(1_700_000_000));
        assert_eq!(of("2023-11-15T00:13:20+02:00"), Ok(1_700_000_000));
        assert_eq!(of("1700000000"), Ok(1_700_000_000));
        for wrong in ["", "yesterday", "1969-12-31", "12:00:00", "2023-02-30"] {
            assert!(of(wrong).is_err(), "{wrong}: {:?}", of(wrong));
        }
    }

    #[test]
    fn a_formatted_time_parses_to_the_same_time() {
        assert_eq!(format_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_time(951_825_600), "2000-02-29T12:00:00Z");
        assert_eq!(format_time(-1), "1969-12-31T23:59:59Z");
        assert_eq!(format_time(253_402_300_799), "9999-12-31T23:59:59Z");
        // Every day of some decades around the ends of centuries, at varying times of day.
        for day in (0..20_000).chain(45_000..60_000) {
            let seconds = day * 86_400 + day * 7919 % 86_400;
            assert_eq!(
                epoch(&toml::Value::String(format_time(seconds))),
                Ok(seconds)
            );
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0640"), Ok(0o640));
        assert_eq!(mode("4755"), Ok(0o4755));
        for wrong in ["", "640x", "888", "+644", "77777", "0o644"] {
            assert!(mode(wrong).is_err(), "{wrong}");
        }
    }
}
