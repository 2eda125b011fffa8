//! Values as they are written → checks, by the kind of the field.

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use ipnet::IpNet;

use super::check::{Check, Names, Pattern, Sessions};
use super::error::FilterError;
use super::field::{Field, Kind, Words};
use super::lexer::Comparison;
use crate::config::nearest;
use crate::packet::{Addr, Mac, from_ip_addr};

/// Names of IP protocols (IANA), the usual one first where there are several.
const PROTOCOLS: [(&str, u8); 18] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("icmp6", 58),
    ("sctp", 132),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("igmp", 2),
    ("ipip", 4),
    ("ipv6", 41),
    ("ospf", 89),
    ("eigrp", 88),
    ("pim", 103),
    ("vrrp", 112),
    ("udplite", 136),
];

/// Decimal multiples, and binary ones with an `i`.
const MULTIPLES: [(&str, u64); 9] = [
    ("", 1),
    ("k", 1000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
];

const DURATIONS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1000),
    ("µs", 1000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A value and where it stands.
type Written = (String, Range<usize>);

/// The number of a protocol name, whatever its case.
pub(super) fn protocol(name: &str) -> Option<u8> {
    PROTOCOLS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| *number)
}

/// What may stand behind a comparison of this field.
pub(super) fn allowed(field: Field) -> String {
    match field.kind() {
        Kind::Address => "an address, a network such as 10.0.0.0/8, or a range such as 10.0.0.1-10.0.0.9".into(),
        Kind::Mac => "a MAC address such as 52:54:00:12:34:56".into(),
        Kind::Protocol => "tcp, udp, icmp, icmpv6, sctp, gre, esp, … or a number up to 255".into(),
        Kind::Number(u64::MAX) => "a number such as 1500, 10k or 1Mi, or a range such as 1k-2k".into(),
        Kind::Number(most) => format!("a number from 0 to {most}, or a range such as 1-{}", most.min(1024)),
        Kind::Duration => "a time such as 250us, 1.5s or 10m".into(),
        Kind::Time => "a day or time (UTC) such as 2025-01-15, 2025-01-15T09:00 or 2025-01-15T09:00:05.25".into(),
        Kind::Real => "a number such as 0.9, or a range such as 0.5-0.9".into(),
        Kind::Word(words) => words().join(", "),
        Kind::Set(words) => format!("{}; several at once with `+`", words().join(", ")),
        Kind::Text => "a text, in which * stands for anything".into(),
        Kind::Rule => "the id of a rule, in which * stands for anything".into(),
        Kind::Groups => "the name of a group, in which * stands for anything".into(),
        Kind::Sessions => "the name of a mirror session, in which * stands for anything".into(),
    }
}

/// The check that a comparison with these values comes down to; `!=` gives that of `=`.
pub(super) fn check(
    text: &str,
    field: Field,
    comparison: Comparison,
    values: &[Written],
) -> Result<Check, Box<FilterError>> {
    let equal = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
    let ordered = matches!(field.kind(), Kind::Number(_) | Kind::Duration | Kind::Time | Kind::Real);
    if !equal && (!ordered || values.len() > 1) {
        let place = values[0].1.start..values[values.len() - 1].1.end;
        let (message, allowed) = match ordered {
            true => ("a list can only be compared with = and !=".to_owned(), "one value".to_owned()),
            false => (format!("`{}` has no order", field.short()), "= and !=".to_owned()),
        };
        return Err(FilterError::new(text, place, message).allowed(allowed));
    }
    let wrong = |(value, place): &Written, words: Option<Words>| {
        let message = format!("`{value}` is no value of `{}`", field.short());
        let suggestion = words.and_then(|words| nearest(&value.to_ascii_lowercase(), words()));
        FilterError::new(text, place.clone(), message).allowed(allowed(field)).suggest(suggestion)
    };
    let numbers = |read: &dyn Fn(&str) -> Option<RangeInclusive<u64>>| {
        let read = |value: &(String, _)| read(&value.0).ok_or_else(|| wrong(value, None));
        let ranges = values.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Check::Numbers(ranges.into_iter().map(|range| compared(range, comparison)).collect()))
    };
    let patterns = || values.iter().map(|(value, _)| Pattern::new(value)).collect();
    match field.kind() {
        Kind::Address => {
            let read = |value: &(String, _)| addresses(&value.0).ok_or_else(|| wrong(value, None));
            Ok(Check::Addresses(values.iter().map(read).collect::<Result<_, _>>()?))
        }
        Kind::Mac => numbers(&|value| mac(value).map(|mac| mac..=mac)),
        Kind::Protocol => numbers(&|value| {
            protocol(value).map(|n| n.into()..=n.into()).or_else(|| range(value, |text| number(text, 255)))
        }),
        Kind::Number(most) => numbers(&|value| range(value, |text| number(text, most))),
        Kind::Duration => numbers(&|value| range(value, duration)),
        Kind::Time => numbers(&times),
        Kind::Real => {
            let read = |value: &(String, _)| reals(&value.0).ok_or_else(|| wrong(value, None));
            let ranges = values.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            Ok(Check::Reals(ranges.into_iter().map(|range| compared_real(range, comparison)).collect()))
        }
        Kind::Word(words) => {
            let known = words();
            let read = |value: &(String, _)| match known.iter().find(|word| word.eq_ignore_ascii_case(&value.0)) {
                Some(word) => Ok(Pattern::new(word)),
                None => Err(wrong(value, Some(words))),
            };
            Ok(Check::Texts(values.iter().map(read).collect::<Result<_, _>>()?))
        }
        Kind::Set(words) => set(values, &words(), &|value| wrong(value, Some(words))),
        Kind::Text => Ok(Check::Texts(patterns())),
        Kind::Rule | Kind::Groups => Ok(Check::Names(Names { patterns: patterns(), numbers: None })),
        Kind::Sessions => Ok(Check::Sessions(Sessions { patterns: patterns(), masks: None })),
    }
}

/// `syn+ack` is both; a number such as 0x12 is exactly these bits, and stands alone.
fn set(
    values: &[Written],
    words: &[&str],
    wrong: &dyn Fn(&Written) -> Box<FilterError>,
) -> Result<Check, Box<FilterError>> {
    let exact: Vec<u64> = values.iter().filter_map(|(value, _)| number(value, u64::MAX)).collect();
    if exact.len() == values.len() {
        return Ok(Check::Numbers(exact.into_iter().map(|bits| bits..=bits).collect()));
    }
    let bit = |name: &str| words.iter().position(|word| word.eq_ignore_ascii_case(name)).map(|at| 1u64 << at);
    let mask = |value: &(String, _)| {
        let bits = value.0.split('+').map(bit).collect::<Option<Vec<u64>>>();
        bits.map(|bits| bits.into_iter().fold(0, |all, bit| all | bit)).ok_or_else(|| wrong(value))
    };
    Ok(Check::Bits(values.iter().map(mask).collect::<Result<_, _>>()?))
}

fn compared(range: RangeInclusive<u64>, comparison: Comparison) -> RangeInclusive<u64> {
    /// No number is in here.
    const NONE: RangeInclusive<u64> = RangeInclusive::new(1, 0);
    let (low, high) = range.into_inner();
    match comparison {
        Comparison::Equal | Comparison::NotEqual => low..=high,
        Comparison::Less => low.checked_sub(1).map_or(NONE, |below| 0..=below),
        Comparison::AtMost => 0..=high,
        Comparison::More => high.checked_add(1).map_or(NONE, |above| above..=u64::MAX),
        Comparison::AtLeast => low..=u64::MAX,
    }
}

fn compared_real(range: RangeInclusive<f64>, comparison: Comparison) -> RangeInclusive<f64> {
    let (low, high) = range.into_inner();
    match comparison {
        Comparison::Equal | Comparison::NotEqual => low..=high,
        Comparison::Less => f64::NEG_INFINITY..=low.next_down(),
        Comparison::AtMost => f64::NEG_INFINITY..=high,
        Comparison::More => high.next_up()..=f64::INFINITY,
        Comparison::AtLeast => low..=f64::INFINITY,
    }
}

/// One value, or two with `-` or `..` between them, the first not larger.
fn range(text: &str, read: impl Fn(&str) -> Option<u64>) -> Option<RangeInclusive<u64>> {
    if let Some(one) = read(text) {
        return Some(one..=one);
    }
    let (low, high) = text.split_once("..").or_else(|| text.split_once('-'))?;
    let (low, high) = (read(low)?, read(high)?);
    (low <= high).then_some(low..=high)
}

fn number(text: &str, most: u64) -> Option<u64> {
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')),
        None => {
            let lower = text.to_ascii_lowercase();
            scaled(lower.strip_suffix('b').unwrap_or(&lower), &MULTIPLES)
        }
    };
    value.filter(|value| *value <= most)
}

fn duration(text: &str) -> Option<u64> {
    if text == "0" { Some(0) } else { scaled(text, &DURATIONS) }
}

/// Digits, perhaps with decimals, and a unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (_, unit) = units.iter().find(|(name, _)| *name == &text[digits..])?;
    let (whole, fraction) = text[..digits].split_once('.').unwrap_or((&text[..digits], ""));
    let whole = whole.parse::<u64>().ok()?.checked_mul(*unit)?;
    if fraction.len() > 18 || (text[..digits].ends_with('.')) {
        return None;
    }
    let part = match fraction {
        "" => 0,
        digits => u128::from(digits.parse::<u64>().ok()?) * u128::from(*unit) / 10u128.pow(digits.len() as u32),
    };
    whole.checked_add(u64::try_from(part).ok()?)
}

fn reals(text: &str) -> Option<RangeInclusive<f64>> {
    let read = |text: &str| text.parse::<f64>().ok().filter(|x| x.is_finite());
    if let Some(one) = read(text) {
        return Some(one..=one);
    }
    let (low, high) = text.split_once("..").or_else(|| text.split_once('-'))?;
    let (low, high) = (read(low)?, read(high)?);
    (low <= high).then_some(low..=high)
}

fn mac(text: &str) -> Option<u64> {
    let Mac(bytes) = text.parse().ok()?;
    Some(bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))
}

fn addresses(text: &str) -> Option<(u8, RangeInclusive<Addr>)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let (version, address) = from_ip_addr(address);
        return Some((version, address..=address));
    }
    if let Ok(net) = text.parse::<IpNet>() {
        let (version, low) = from_ip_addr(net.network());
        return Some((version, low..=from_ip_addr(net.broadcast()).1));
    }
    let (low, high) = text.split_once("..").or_else(|| text.split_once('-'))?;
    let (version, low) = from_ip_addr(low.parse().ok()?);
    let (same, high) = from_ip_addr(high.parse().ok()?);
    (version == same && low <= high).then_some((version, low..=high))
}

/// A day, minute, second or fraction of one: all instants in it.
fn times(text: &str) -> Option<RangeInclusive<u64>> {
    if let Some((from, to)) = text.split_once("..") {
        let (from, to) = (*times(from)?.start(), *times(to)?.end());
        return (from <= to).then_some(from..=to);
    }
    let bare = text.strip_suffix('Z').or_else(|| text.strip_suffix("+0000")).unwrap_or(text);
    let (day, time) = bare.split_once('T').unwrap_or((bare, ""));
    let field = |text: &str, digits: usize, range: RangeInclusive<u64>| {
        let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|n| plain && range.contains(n))
    };
    let [year, month, date] = parts(day, '-')?;
    let (year, month) = (field(year, 4, 1970..=2500)?, field(month, 2, 1..=12)?);
    let date = field(date, 2, 1..=days_in(year, month))?;
    let start = days(year, month, date) * 86_400;
    let (seconds, width) = match (time, time.len()) {
        ("", _) => (start, 86_400),
        (_, 5) => {
            let (hour, minute) = time.split_once(':')?;
            (start + field(hour, 2, 0..=23)? * 3600 + field(minute, 2, 0..=59)? * 60, 60)
        }
        _ => {
            let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
            let [hour, minute, second] = parts(whole, ':')?;
            let clock = field(hour, 2, 0..=23)? * 3600 + field(minute, 2, 0..=59)? * 60 + field(second, 2, 0..=59)?;
            if time.contains('.') {
                let unit = 10u64.pow(9u32.checked_sub(u32::try_from(fraction.len()).ok()?)?);
                let part = field(fraction, fraction.len(), 0..=999_999_999)? * unit;
                let low = (start + clock) * 1_000_000_000 + part;
                return Some(low..=low + unit - 1);
            }
            (start + clock, 1)
        }
    };
    Some(seconds * 1_000_000_000..=(seconds + width) * 1_000_000_000 - 1)
}

/// Nanoseconds since the Unix epoch of a time as gnomon writes it.
pub fn instant(text: &str) -> Option<u64> {
    times(text).map(|range| *range.start())
}

fn parts(text: &str, between: char) -> Option<[&str; 3]> {
    let mut parts = text.split(between);
    let three = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(three)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date not before it.
fn days(year: u64, month: u64, date: u64) -> u64 {
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let months: u64 = (1..month).map(|month| days_in(year, month)).sum();
    (year - 1970) * 365 + leaps + months + date - 1
}
