//! What a pair did on one service in the interval that is not over yet.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

use super::slice::{BYTES, FLOWS, HOSTS, PACKETS, QUANTITIES, REFUSED, Slice};
use crate::packet::Host;

/// Bits of the sketch that counts distinct hosts: exact to a few percent up to a thousand, "many" beyond.
const WORDS: usize = 16;

/// Numbers of one interval, in the order of [`QUANTITY_NAMES`](super::QUANTITY_NAMES).
pub(super) type Numbers = [f64; QUANTITIES];

/// Counts of one service of a pair.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    all: Counts,
    /// The same without what belongs to attacks, once there is such.
    clean: Option<Box<Counts>>,
    /// Who of each side sent most bytes in one record, to whom, and how many.
    loudest: Option<[Loudest; 2]>,
}

type Loudest = ((Host, Host), u64);

#[derive(Clone, Debug, Default)]
struct Counts {
    numbers: Numbers,
    hosts: [[u64; WORDS]; 2],
}

impl Tally {
    pub(super) fn add(&mut self, slice: &Slice) {
        if slice.attack {
            self.clean.get_or_insert_with(|| Box::new(self.all.clone()));
        } else if let Some(clean) = &mut self.clean {
            clean.add(slice);
        }
        self.all.add(slice);
        let (source, destination) = (slice.source, slice.destination);
        let sent = [((source, destination), slice.bytes[0]), ((destination, source), slice.bytes[1])];
        let loudest = self.loudest.get_or_insert(sent);
        for (loudest, sent) in
            loudest.iter_mut().zip(sent).filter(|(loudest, sent)| (sent.1, sent.0) > (loudest.1, loudest.0))
        {
            *loudest = sent;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.loudest.is_none()
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.all.finish()
    }

    /// What may be learnt: `None` when all there was belongs to attacks.
    pub(super) fn clean(&self) -> Option<Numbers> {
        match &self.clean {
            None => Some(self.all.finish()),
            Some(clean) if clean.numbers.iter().any(|n| *n > 0.0) => Some(clean.finish()),
            Some(_) => None,
        }
    }

    pub(super) fn is_attacked(&self) -> bool {
        self.clean.is_some()
    }

    pub(super) fn loudest(&self, side: usize) -> Option<Loudest> {
        self.loudest.map(|loudest| loudest[side])
    }
}

impl Counts {
    fn add(&mut self, slice: &Slice) {
        let n = &mut self.numbers;
        n[FLOWS] += f64::from(u8::from(slice.ended));
        n[REFUSED] += f64::from(u8::from(slice.ended && slice.refused));
        for side in [0, 1] {
            n[PACKETS[side]] += slice.packets[side] as f64;
            n[BYTES[side]] += slice.bytes[side] as f64;
        }
        for (sketch, host) in self.hosts.iter_mut().zip([slice.source, slice.destination]) {
            let at = FxBuildHasher.hash_one(host) >> 54;
            sketch[(at / 64) as usize] |= 1 << (at % 64);
        }
    }

    fn finish(&self) -> Numbers {
        let mut numbers = self.numbers;
        for (sketch, at) in self.hosts.iter().zip(HOSTS) {
            numbers[at] = distinct(sketch);
        }
        numbers
    }
}

/// Linear counting (Whang, Vander-Zanden, Taylor 1990).
fn distinct(sketch: &[u64; WORDS]) -> f64 {
    let bits = (WORDS * 64) as f64;
    let free: u32 = sketch.iter().map(|word| word.count_zeros()).sum();
    bits * (bits / f64::from(free.max(1))).ln()
}
