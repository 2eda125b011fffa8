//! One comparison of one field, ready to be made: no allocation, no lock.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::field::Value;
use crate::packet::Addr;

/// What a value is compared with; several of a kind mean any of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Check {
    /// It is there, and not zero or empty.
    Present,
    Numbers(Box<[RangeInclusive<u64>]>),
    Reals(Box<[RangeInclusive<f64>]>),
    /// IP version and addresses.
    Addresses(Box<[(u8, RangeInclusive<Addr>)]>),
    /// All bits of any of these.
    Bits(Box<[u64]>),
    Texts(Box<[Pattern]>),
    /// Names of rules or groups.
    Names(Names),
    Sessions(Sessions),
}

/// Names, and once bound the numbers of rules or group sets that they stand for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Names {
    pub(super) patterns: Box<[Pattern]>,
    pub(super) numbers: Option<Numbers>,
}

/// A set of small numbers, out of those below `known`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    bits: Arc<[u64]>,
    known: u32,
}

/// Names of mirror sessions, and once bound their bits from each of some generations on, ascending.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sessions {
    pub(super) patterns: Box<[Pattern]>,
    pub(super) masks: Option<Arc<[(u32, u64)]>>,
}

/// Text in which `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Box<str>);

impl Check {
    /// `None`: that cannot be said here.
    #[inline]
    pub(super) fn holds(&self, value: &Value<'_>) -> Option<bool> {
        match (self, value) {
            (_, Value::Unknown) => None,
            (_, Value::Absent) => Some(false),
            (Check::Present, value) => Some(is_present(value)),
            (Check::Numbers(ranges), Value::Number(n)) => Some(ranges.iter().any(|range| range.contains(n))),
            (Check::Reals(ranges), Value::Real(x)) => Some(ranges.iter().any(|range| range.contains(x))),
            (Check::Addresses(ranges), Value::Address(version, address)) => {
                Some(ranges.iter().any(|(of, range)| of == version && range.contains(address)))
            }
            (Check::Bits(masks), Value::Number(bits)) => Some(masks.iter().any(|mask| bits & mask == *mask)),
            (Check::Texts(patterns), value) => Some(any_text(patterns, value)),
            (Check::Names(names), Value::Handle(number)) => {
                names.numbers.as_ref().and_then(|numbers| numbers.contains(*number))
            }
            (Check::Names(names), value) => Some(any_text(&names.patterns, value)),
            (Check::Sessions(sessions), Value::Sessions { generation, bits }) => {
                sessions.mask(*generation).map(|mask| bits & mask != 0)
            }
            (Check::Sessions(sessions), value) => Some(any_text(&sessions.patterns, value)),
            // A field whose value is of another kind than the schema says.
            _ => Some(false),
        }
    }
}

fn is_present(value: &Value<'_>) -> bool {
    match value {
        Value::Absent | Value::Unknown => false,
        Value::Number(n) => *n != 0,
        Value::Real(x) => *x != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::Texts(texts) => !texts.is_empty(),
        Value::Words(words) => !words.is_empty(),
        Value::Sessions { bits, .. } => *bits != 0,
        Value::Address(..) | Value::Handle(_) => true,
    }
}

fn any_text(patterns: &[Pattern], value: &Value<'_>) -> bool {
    match value {
        Value::Text(text) => patterns.iter().any(|pattern| pattern.matches(text)),
        Value::Texts(texts) => {
            texts.iter().filter_map(|text| text.as_str()).any(|text| patterns.iter().any(|p| p.matches(text)))
        }
        Value::Words(words) => words.iter().any(|word| patterns.iter().any(|pattern| pattern.matches(word))),
        _ => false,
    }
}

impl Numbers {
    pub(super) fn new(known: u32) -> Self {
        Self { bits: vec![0; (known as usize).div_ceil(64)].into(), known }
    }

    pub(super) fn insert(&mut self, number: u32) {
        if let Some(word) = Arc::make_mut(&mut self.bits).get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// `None` for a number given only later.
    fn contains(&self, number: u32) -> Option<bool> {
        let word = self.bits.get(number as usize / 64).filter(|_| number < self.known)?;
        Some(word >> (number % 64) & 1 == 1)
    }
}

impl Sessions {
    fn mask(&self, generation: u32) -> Option<u64> {
        let masks = self.masks.as_ref()?;
        let at = masks.partition_point(|(first, _)| *first <= generation).checked_sub(1)?;
        Some(masks[at].1)
    }
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    pub(super) fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    /// Linear in the text for each star: on a mismatch only the last star takes one more byte.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                star = Some((p + 1, t));
                p += 1;
            } else if pattern.get(p) == Some(&text[t]) {
                (p, t) = (p + 1, t + 1);
            } else if let Some((after, taken)) = star {
                star = Some((after, taken + 1));
                (p, t) = (after, taken + 1);
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}
