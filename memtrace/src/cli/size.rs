//! Sizes on the command line: `524288`, `512KiB`, `512k`, `1M`.

/// Parses a number of bytes. Units are powers of 1024, with or without `iB` or `B`.
///
/// # Errors
/// A sentence that says what is accepted.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("{text:?} is not a size: use bytes, or a unit as in 512KiB, 4MiB, 1GiB")),
    };
    let number: u64 = number.parse().map_err(|_| {
        format!("{text:?} is not a size: use a whole number of bytes, or a unit as in 512KiB")
    })?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is more than 64 bits can hold: use a smaller size"))
}

/// Parses the mean distance between two samples, in bytes.
///
/// # Errors
/// A sentence that says what is accepted.
pub(super) fn interval(text: &str) -> Result<u64, String> {
    let (least, most) = (memtrace_common::sampling::MIN_INTERVAL, 1 << 40);
    match bytes(text)? {
        interval if interval == 1 || (least..=most).contains(&interval) => Ok(interval),
        other => Err(format!(
            "an interval of {other} bytes is not possible: use 1 to record every allocation, or {least} bytes to \
             1 TiB"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, size) in [
            ("1", 1),
            ("524288", 512 << 10),
            ("512KiB", 512 << 10),
            ("512k", 512 << 10),
            ("4 MB", 4 << 20),
            ("1g", 1 << 30),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "KiB", "-1", "1.5M", "12 parsecs", "99999999999G", "18446744073709551616"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(interval("0").is_err());
        assert!(interval("2").is_err());
        assert_eq!(interval("64"), Ok(64));
    }
}
