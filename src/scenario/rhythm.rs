//! Time of day: dates in and out, and how busy each hour is.

/// A day in nanoseconds.
const DAY_NS: u64 = 86_400_000_000_000;

/// Hour of the day with most traffic.
const PEAK_HOUR: f64 = 14.0;

/// Traffic in the dead of night, as a share of that at the peak.
const NIGHT: f64 = 0.12;

/// Traffic at a weekend, as a share of that of the same hour of a working day.
const WEEKEND: f64 = 0.4;

/// Whether it is a Saturday or Sunday; 1970 began on a Thursday.
pub(super) fn is_weekend(ns: u64) -> bool {
    matches!(ns / DAY_NS % 7, 2 | 3)
}

/// How busy a moment is, at most 1.0; `ns` is UTC since 1970. A raised cosine, squared so that working
/// hours stand out, and less of it at weekends.
pub(super) fn activity(ns: u64) -> f64 {
    let hour = (ns % DAY_NS) as f64 / 3.6e12;
    let swing = (1.0 + ((hour - PEAK_HOUR) / 24.0 * std::f64::consts::TAU).cos()) / 2.0;
    (NIGHT + (1.0 - NIGHT) * swing * swing) * if is_weekend(ns) { WEEKEND } else { 1.0 }
}

/// Start of the day that `ns` lies in.
pub(super) fn midnight(ns: u64) -> u64 {
    ns - ns % DAY_NS
}

/// Reads `2025-01-15T09:00:00Z` (UTC; seconds and `Z` may be missing), or `09:00` on `default_day`
/// (nanoseconds since 1970 at midnight).
pub(super) fn parse(text: &str, default_day: u64) -> Option<u64> {
    let text = text.trim().trim_end_matches(['Z', 'z']);
    let (day, clock) = match text.split_once(['T', 't', ' ']) {
        Some((date, clock)) => (parse_date(date)?, clock),
        None if text.contains(':') => (default_day, text),
        None => (parse_date(text)?, "00:00"),
    };
    let mut parts = clock.split(':').map(|p| p.parse::<u64>().ok().filter(|_| p.len() == 2));
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = match parts.next() {
        Some(second) => second?,
        None => 0,
    };
    let valid = hour < 24 && minute < 60 && second < 60 && parts.next().is_none();
    valid.then(|| day + (hour * 3600 + minute * 60 + second) * 1_000_000_000)
}

/// `YYYY-MM-DD`, 1970 to 2105 (a pcap file counts seconds in 32 bits).
fn parse_date(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let year: u64 = parts.next().filter(|p| p.len() == 4)?.parse().ok()?;
    let month: u64 = parts.next().filter(|p| p.len() == 2)?.parse().ok()?;
    let day: u64 = parts.next().filter(|p| p.len() == 2)?.parse().ok()?;
    if parts.next().is_some() || !(1970..=2105).contains(&year) {
        return None;
    }
    let valid = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    let days = (1970..year).map(days_in_year).sum::<u64>() + (1..month).map(|m| days_in(year, m)).sum::<u64>();
    valid.then(|| (days + day - 1) * DAY_NS)
}

/// `2025-01-15T09:00:00.000000000Z`.
pub(super) fn iso(ns: u64) -> String {
    let (mut days, mut year, mut month) = (ns / DAY_NS, 1970, 1);
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    let rest = ns % DAY_NS;
    let seconds = rest / 1_000_000_000;
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        days + 1,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        rest % 1_000_000_000
    )
}

fn is_leap(year: u64) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

fn days_in_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(is_leap(year)),
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_there_and_back() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2025-01-15T09:00:00Z", "2100-12-31T12:00:00Z"] {
            let ns = parse(text, 0).unwrap();
            assert_eq!(iso(ns), text.replace('Z', ".000000000Z"));
        }
        assert_eq!(parse("2025-01-15T09:00", 0), Some(1_736_931_600_000_000_000));
        assert_eq!(parse("09:30", DAY_NS), Some(DAY_NS + 34_200_000_000_000));
        assert_eq!(parse("1970-01-02", 0), Some(DAY_NS));
        for wrong in ["", "9:00", "24:00", "2025-02-29", "2025-13-01T00:00", "1969-01-01", "09:00:00:00", "x"] {
            assert_eq!(parse(wrong, 0), None, "{wrong}");
        }
    }

    #[test]
    fn the_day_has_a_peak_and_a_night() {
        let at = |hour: u64| activity(5 * DAY_NS + hour * 3_600_000_000_000);
        assert!((at(14) - 1.0).abs() < 1e-9);
        assert!((at(2) - NIGHT).abs() < 1e-9);
        assert!(at(10) > 2.0 * at(6));
        assert!((0..24).all(|h| (NIGHT..=1.0).contains(&at(h))));
    }

    #[test]
    fn weekends_are_quiet() {
        let at = |text: &str| parse(text, 0).unwrap();
        let (friday, saturday) = (at("2025-01-17T14:00"), at("2025-01-18T14:00"));
        assert!(!is_weekend(friday) && is_weekend(saturday) && is_weekend(at("2025-01-19T23:59")));
        assert!(!is_weekend(at("2025-01-20T00:00")));
        assert!((activity(saturday) / activity(friday) - WEEKEND).abs() < 1e-9);
    }
}
