//! What is counted of a row; the same whatever the order in which it was put together.

use super::change::fingerprint;
use crate::packet::scramble;
use crate::policy::learning::{Answer, Seen};

/// Flows that are kept as evidence.
pub const EVIDENCE: usize = 3;
const SECOND: u64 = 1_000_000_000;
const DAY: u32 = 86_400;
const HOUR: u32 = 3600;
/// Scores are kept in thousandths.
const SCALE: f64 = 1000.0;

/// Counters of a row. Numbers of VMs are estimates, right to a few per cent up to a hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub flows: u32,
    /// Let through and answered.
    pub answered: u32,
    /// Named by a detector, or within an alert.
    pub attack: u32,
    pub scored: u32,
    pub score_sum: u64,
    pub score_max: u16,
    pub packets: u64,
    pub bytes: u64,
    /// Seconds since 1970.
    pub first: u32,
    pub last: u32,
    /// A bit each for the last 64 days (UTC), by number modulo 64, and for the hours of the day.
    pub days: u64,
    pub hours: u32,
    /// A bit each for VMs and addresses, by hash.
    pub clients: u64,
    pub servers: u64,
    /// Flow ids, those with the smallest hashes; 0 for none.
    pub evidence: [u64; EVIDENCE],
}

/// One bit of 64 for a name.
pub(super) fn bit_of(name: &str) -> u64 {
    1 << (fingerprint(name) & 63)
}

/// Names behind a bit set, estimated (linear counting, Whang and others 1990).
pub(super) fn count_of(bits: u64) -> u32 {
    match bits.count_zeros() {
        0 => 270,
        zeros => (-64.0 * (f64::from(zeros) / 64.0).ln()).round() as u32,
    }
}

impl Tally {
    pub fn of(seen: &Seen) -> Self {
        let first = (seen.start / SECOND) as u32;
        let score = seen.score.map(|score| (score.clamp(0.0, 1.0) * SCALE) as u16);
        Self {
            flows: 1,
            answered: u32::from(seen.answer == Answer::Answered),
            attack: u32::from(seen.attack),
            scored: u32::from(score.is_some()),
            score_sum: u64::from(score.unwrap_or(0)),
            score_max: score.unwrap_or(0),
            packets: seen.packets,
            bytes: seen.bytes,
            first,
            last: (seen.end / SECOND) as u32,
            days: 1 << (first / DAY % 64),
            hours: 1 << (first % DAY / HOUR),
            clients: bit_of(&seen.from.name()),
            servers: bit_of(&seen.to.name()),
            evidence: [seen.flow_id, 0, 0],
        }
    }

    pub fn merge(&mut self, other: &Self) {
        if self.flows == 0 {
            *self = *other;
            return;
        }
        self.flows = self.flows.saturating_add(other.flows);
        self.answered = self.answered.saturating_add(other.answered);
        self.attack = self.attack.saturating_add(other.attack);
        self.scored = self.scored.saturating_add(other.scored);
        self.score_sum = self.score_sum.saturating_add(other.score_sum);
        self.score_max = self.score_max.max(other.score_max);
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.days |= other.days;
        self.hours |= other.hours;
        self.clients |= other.clients;
        self.servers |= other.servers;
        other.evidence.iter().filter(|id| **id != 0).for_each(|id| self.note(*id));
    }

    /// Keeps a flow as evidence where there is room, or where its hash is smaller than another's.
    fn note(&mut self, mut id: u64) {
        if self.evidence.contains(&id) {
            return;
        }
        let rank = |id: u64| if id == 0 { u64::MAX } else { scramble(id) };
        for place in &mut self.evidence {
            if rank(id) < rank(*place) {
                std::mem::swap(place, &mut id);
            }
        }
    }

    pub fn day_count(&self) -> u32 {
        self.days.count_ones()
    }

    pub fn hour_count(&self) -> u32 {
        self.hours.count_ones()
    }

    pub fn client_count(&self) -> u32 {
        count_of(self.clients)
    }

    pub fn server_count(&self) -> u32 {
        count_of(self.servers)
    }

    pub fn mean_score(&self) -> Option<f64> {
        (self.scored > 0).then(|| self.score_sum as f64 / f64::from(self.scored) / SCALE)
    }

    /// Share of flows that a detector named.
    pub fn attack_share(&self) -> f64 {
        f64::from(self.attack) / f64::from(self.flows.max(1))
    }

    pub fn evidence(&self) -> Vec<u64> {
        self.evidence.iter().copied().filter(|id| *id != 0).collect()
    }
}
