//! Timestamps in the form Suricata writes.

use std::fmt::Write;

const NANOSECONDS: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// `2016-05-12T09:11:22.123456+0000`: ISO 8601 with microseconds (cut, not rounded), UTC.
/// `nanoseconds` since the Unix epoch.
pub fn iso8601(nanoseconds: u64) -> String {
    let (seconds, micros) = (nanoseconds / NANOSECONDS, nanoseconds % NANOSECONDS / 1000);
    let (year, month, day) = date(seconds / DAY);
    let (hour, minute, second) = (seconds % DAY / 3600, seconds % 3600 / 60, seconds % 60);
    let mut text = String::with_capacity(32);
    // Writing to a String does not fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+0000");
    text
}

/// `20160512T091122.123456Z`: the same instant as [`iso8601`] says, for names of files.
pub(super) fn compact(nanoseconds: u64) -> String {
    let text = iso8601(nanoseconds);
    let mut compact: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    compact.truncate(compact.find('+').unwrap_or(compact.len()));
    compact + "Z"
}

/// Days since 1970-01-01 as year, month, day of the Gregorian calendar. Years are counted from
/// March, so that the leap day is the last of its year; 400 years are 146 097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let since = days + 719_468; // days since 0000-03-01
    let (era, day) = (since / 146_097, since % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 }, day_of_month)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        assert_eq!(iso8601(0), "1970-01-01T00:00:00.000000+0000");
        assert_eq!(iso8601(1_463_044_282_123_456_789), "2016-05-12T09:11:22.123456+0000");
        assert_eq!(iso8601(951_827_696_000_000_999), "2000-02-29T12:34:56.000000+0000");
        assert_eq!(iso8601(4_107_542_399_999_999_999), "2100-02-28T23:59:59.999999+0000");
        assert_eq!(iso8601(u64::MAX), "2554-07-21T23:34:33.709551+0000");
    }

    #[test]
    fn in_names_of_files() {
        assert_eq!(compact(1_463_044_282_123_456_789), "20160512T091122.123456Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = date(0);
        for days in 1..200_000 {
            let (y, m, d) = date(days);
            let leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
            let february = if leap { 29 } else { 28 };
            let length = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let (ly, lm, ld) = last;
            let ok = (y, m, d) == (ly, lm, ld + 1)
                || (d == 1 && (y, m) == (ly, lm + 1))
                || ((m, d) == (1, 1) && y == ly + 1 && (lm, ld) == (12, 31));
            assert!(ok && d <= length[m as usize - 1], "{last:?} {y} {m} {d}");
            last = (y, m, d);
        }
    }
}
