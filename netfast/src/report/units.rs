//! Numbers for people.

use std::time::Duration;

/// `0`, `999`, `12,345,678`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a binary unit and three significant digits: `999 B`, `1.50 KiB`, `12.3 MiB`, `4.20 TiB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 would be printed as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A part of a whole: `99.98 %`, `0 %`, `100 %`; a dash of nothing. Never rounded up to all or down to none, because
/// "100 %" is read as "not one packet".
pub fn share(part: u64, whole: u64) -> String {
    match (part, whole) {
        (_, 0) => "-".into(),
        (0, _) => "0 %".into(),
        (part, whole) if part >= whole => "100 %".into(),
        _ => format!("{:.2} %", (part as f64 / whole as f64 * 100.0).clamp(0.01, 99.99)),
    }
}

/// A time in its two largest units at most: `0.4 s`, `42 s`, `3m 5s`, `2h 10m`, `5d 3h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        let texts = [0, 7, 999, 1000, 65_536, 12_345_678].map(count);
        assert_eq!(texts, ["0", "7", "999", "1,000", "65,536", "12,345,678"]);
    }

    #[test]
    fn bytes_have_three_digits() {
        let texts = [0, 1023, 1024, 1536, 10_234, 1_047_000, 12 << 20, u64::MAX].map(bytes);
        assert_eq!(
            texts,
            [
                "0 B", "1023 B", "1.00 KiB", "1.50 KiB", "9.99 KiB", "1.00 MiB", "12.0 MiB", "16.0 EiB"
            ]
        );
    }

    #[test]
    fn shares_are_honest_at_the_ends() {
        assert_eq!(share(0, 0), "-");
        assert_eq!(share(0, 9), "0 %");
        assert_eq!(share(1, 1_000_000), "0.01 %");
        assert_eq!(share(999_999, 1_000_000), "99.99 %");
        assert_eq!(share(5, 5), "100 %");
        assert_eq!(share(1, 8), "12.50 %");
    }

    #[test]
    fn durations_have_two_units() {
        let texts = [0.44, 9.96, 42.0, 185.0, 7_800.0, 443_000.0].map(|s| duration(Duration::from_secs_f64(s)));
        assert_eq!(texts, ["0.4 s", "10.0 s", "42 s", "3m 5s", "2h 10m", "5d 3h"]);
    }
}
