//! Numbers as people read them.

use std::time::Duration;

use crate::profile::Profile;

/// An amount of memory in binary units, with three digits or so: `512 B`, `8.0 MiB`, `1023 KiB`.
pub fn bytes(amount: i128) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let sign = if amount < 0 { "-" } else { "" };
    let size = amount.unsigned_abs();
    if size < 1024 {
        return format!("{sign}{size} B");
    }
    let mut scaled = size as f64 / 1024.0;
    let mut unit = 0;
    // From 1023.5 on, it would be rounded to 1024 of this unit.
    while scaled >= 1023.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let digits = if scaled < 99.95 { 1 } else { 0 };
    format!("{sign}{scaled:.digits$} {}", UNITS[unit])
}

/// A number with commas between thousands: `5,000,000`.
pub fn count(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    if number < 0 {
        out.push('-');
    }
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 object`, `2,048 objects`.
pub fn counted(number: i128, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `part` of `whole`, e.g. `12.5%`; nothing is a share of nothing, and is given as `-`.
pub fn percent(part: i128, whole: i128) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", 100.0 * part as f64 / whole as f64) }
}

/// A duration in seconds, or in minutes and hours where it is long: `12.5 s`, `3 min 05 s`, `2 h 00 min`.
pub fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..60 => format!("{:.1} s", duration.as_millis() as f64 / 1000.0),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600.. => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// A time that may be short: `12.5 s`, `340 ms`, `12 µs`.
pub fn short_seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 100.0 => format!("{seconds:.0} s"),
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 1e-3 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.0} µs", seconds * 1e6),
    }
}

/// How the values came about: `one sample per 512 KiB on average`, or that nothing was left out.
pub fn sampling(profile: &Profile) -> String {
    let period = profile.period.into();
    match (profile.period_type.unit, period) {
        ("bytes", ..=1) => "every allocation recorded".to_owned(),
        ("bytes", _) => format!("one sample per {} on average", bytes(period)),
        (_, ..=1) => "every event recorded".to_owned(),
        (..) => format!("one sample per {} events on average", count(period)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_the_next_unit_in_time() {
        let cases: [(i128, &str); 12] = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (512 << 10, "512 KiB"),
            (102_349, "100 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.0 MiB"),
            (1_048_575, "1.0 MiB"),
            (-(3 << 30), "-3.0 GiB"),
            (i64::MAX as i128, "8.0 EiB"),
            (i64::MIN as i128, "-8.0 EiB"),
        ];
        for (amount, text) in cases {
            assert_eq!(bytes(amount), text, "{amount}");
        }
    }

    #[test]
    fn counts_have_commas() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(-1_234_567), "-1,234,567");
        assert_eq!(counted(1, "object"), "1 object");
        assert_eq!(counted(1000, "object"), "1,000 objects");
    }

    #[test]
    fn shares_of_nothing_are_not_numbers() {
        assert_eq!(percent(1, 8), "12.5%");
        assert_eq!(percent(0, 0), "-");
    }

    #[test]
    fn durations_are_short() {
        let times = [250.0, 12.54, 0.34, 0.000_012].map(short_seconds);
        assert_eq!(times, ["250 s", "12.5 s", "340 ms", "12 µs"]);
        assert_eq!(seconds(Duration::from_millis(12_540)), "12.5 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
        assert_eq!(seconds(Duration::from_secs(7260)), "2 h 01 min");
    }
}
