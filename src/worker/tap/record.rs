//! What a capture keeps of one packet at one point, as the words in front of its bytes in a [`TapRing`](super::TapRing).

use super::Point;
use crate::packet::DropReason;
use crate::rules::{Decision, RuleHandle, Tier};

/// Words of a head in the ring.
pub const HEAD_WORDS: usize = 8;

/// A packet at a point; its bytes come behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureHead {
    pub point: Point,
    /// The port this is about: where the packet came in; at [`Point::Tx`] where it went out. Numbers are
    /// places in the configuration's list of ports.
    pub port: u16,
    /// When it was at the point, in nanoseconds since the Unix epoch.
    pub ns: u64,
    /// When it was received.
    pub received_ns: u64,
    /// Length on the wire, and how many bytes of it are here.
    pub wire_len: u32,
    pub captured_len: u32,
    pub worker: u16,
    /// The box made this packet: an answer to a rejected one.
    pub generated: bool,
    /// Not to be shown: the device did not take it after all.
    pub void: bool,
    /// 0 without a flow.
    pub flow_id: u64,
    /// `None` where it was dropped before it could be judged.
    pub judged: Option<Judged>,
    pub dropped: Option<DropReason>,
    /// Sessions that a copy was made for; bits of `judged`'s generation.
    pub mirrors: u64,
    /// Packets of this port and point that found no room since the record before.
    pub lost: u32,
}

/// The part of a verdict that a capture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub decision: Decision,
    pub tier: Tier,
    pub rule: RuleHandle,
    pub generation: u32,
}

/// Word with the time at the point, and word with flags, for changing them before they are published.
pub(super) const TIME_WORD: usize = 0;
pub(super) const FLAGS_WORD: usize = 2;

const GENERATED: u64 = 1;
const VOID: u64 = 2;
const JUDGED: u64 = 4;

const DECISIONS: [Decision; 3] = [Decision::Allow, Decision::Deny, Decision::Reject];
const TIERS: [Tier; 5] = [Tier::Override, Tier::Threat, Tier::Policy, Tier::Learned, Tier::Default];

impl CaptureHead {
    /// For the ring. Words 0 and 2 are the time and the flags.
    pub fn to_words(&self) -> [u64; HEAD_WORDS] {
        let rule = self.judged.map_or(0, |j| u64::from(j.rule.0) << 32 | u64::from(j.generation));
        [
            self.ns,
            u64::from(self.wire_len) << 32 | u64::from(self.captured_len),
            self.flags_word(),
            self.received_ns,
            self.flow_id,
            rule,
            u64::from(self.lost) << 32 | u64::from(self.worker),
            self.mirrors,
        ]
    }

    pub(super) fn flags_word(&self) -> u64 {
        let place = |of: Option<usize>| of.unwrap_or_default() as u64;
        let flags = if self.generated { GENERATED } else { 0 }
            | if self.void { VOID } else { 0 }
            | if self.judged.is_some() { JUDGED } else { 0 };
        let decision = place(self.judged.and_then(|j| DECISIONS.iter().position(|d| *d == j.decision)));
        let tier = place(self.judged.and_then(|j| TIERS.iter().position(|t| *t == j.tier)));
        let dropped = self.dropped.map_or(0, |reason| reason.index() as u64 + 1);
        flags | (self.point as u64) << 8 | decision << 16 | tier << 24 | u64::from(self.port) << 32 | dropped << 48
    }

    /// From the ring; `None` when no worker wrote this.
    pub fn from_words(words: &[u64; HEAD_WORDS]) -> Option<Self> {
        let flags = words[FLAGS_WORD];
        let byte = |shift: u32| (flags >> shift) as u8 as usize;
        let judged = (flags & JUDGED != 0).then_some(Judged {
            decision: *DECISIONS.get(byte(16))?,
            tier: *TIERS.get(byte(24))?,
            rule: RuleHandle((words[5] >> 32) as u32),
            generation: words[5] as u32,
        });
        Some(Self {
            point: *Point::ALL.get(byte(8))?,
            port: (flags >> 32) as u16,
            ns: words[TIME_WORD],
            received_ns: words[3],
            wire_len: (words[1] >> 32) as u32,
            captured_len: words[1] as u32,
            worker: words[6] as u16,
            generated: flags & GENERATED != 0,
            void: flags & VOID != 0,
            flow_id: words[4],
            judged,
            dropped: ((flags >> 48) as usize).checked_sub(1).and_then(|index| DropReason::all().nth(index)),
            mirrors: words[7],
            lost: (words[6] >> 32) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_the_same() {
        let mut heads = Vec::new();
        for (n, dropped) in DropReason::all().map(Some).chain([None]).enumerate() {
            let judged = Judged {
                decision: DECISIONS[n % 3],
                tier: TIERS[n % 5],
                rule: RuleHandle(u32::MAX - n as u32),
                generation: n as u32,
            };
            heads.push(CaptureHead {
                point: Point::ALL[n % 4],
                port: n as u16 * 1000,
                ns: u64::MAX - n as u64,
                received_ns: n as u64,
                wire_len: 9000,
                captured_len: 64,
                worker: u16::MAX,
                generated: n % 2 == 0,
                void: n % 3 == 0,
                flow_id: 1 << 52,
                judged: (n % 5 != 0).then_some(judged),
                dropped,
                mirrors: u64::MAX,
                lost: u32::MAX,
            });
        }
        for head in heads {
            assert_eq!(CaptureHead::from_words(&head.to_words()), Some(head));
        }
        assert_eq!(CaptureHead::from_words(&[u64::MAX; HEAD_WORDS]), None);
    }
}
