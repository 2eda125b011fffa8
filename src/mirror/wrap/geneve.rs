//! The GENEVE option (RFC 8926, section 3.5) that tells what is known of a copy.
//!
//! ```text
//!   0        1        2        3
//!   option class 0xff47 (experimental) | type 1 | 9 words follow
//!   worker | decision | drop reason | flags: 1 score known, 2 cut
//!   sequence number
//!   rule handle
//!   generation
//!   score × 65535     | zero
//!   packets that one copy stands for, IEEE 754 single
//!   length before it was cut
//!   received, nanoseconds since the Unix epoch: high word, low word
//! ```
//! `decision` is 0 allow, 1 deny, 2 reject; `drop reason` is 0 for a sound frame, else 1 + its index.

use super::{Copy, Stream, get16, get32, put16, put32};
use crate::packet::DropReason;
use crate::rules::{Decision, RuleHandle};

const CLASS: u16 = 0xff47;
const TYPE: u8 = 1;
const WORDS: usize = 9;
pub(super) const OPTIONS_LEN: usize = 4 + 4 * WORDS;
const SCORED: u8 = 1;
const CUT: u8 = 2;

const DECISIONS: [Decision; 3] = [Decision::Allow, Decision::Deny, Decision::Reject];

/// What the option of a received copy says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Detail {
    pub rule: RuleHandle,
    pub generation: u32,
    pub decision: Decision,
    pub problem: Option<DropReason>,
    pub score: Option<f32>,
    pub sampling: f32,
    pub original_len: u32,
    pub clock_ns: u64,
}

pub(super) fn write(stream: Stream, to: &mut [u8]) {
    put16(to, 0, CLASS);
    to[2] = TYPE;
    to[3] = WORDS as u8;
    to[4] = stream.worker;
}

pub(super) fn finish(copy: &Copy, to: &mut [u8]) {
    to[5] = DECISIONS.iter().position(|decision| *decision == copy.decision).unwrap_or(0) as u8;
    to[6] = copy.problem.map_or(0, |problem| 1 + problem.index() as u8);
    to[7] = if copy.score.is_some() { SCORED } else { 0 } | if copy.len < copy.original_len { CUT } else { 0 };
    put32(to, 8, copy.sequence);
    put32(to, 12, copy.rule.0);
    put32(to, 16, copy.generation);
    put16(to, 20, (copy.score.unwrap_or(0.0) * 65535.0) as u16);
    put32(to, 24, copy.sampling.to_bits());
    put32(to, 28, copy.original_len);
    put32(to, 32, (copy.clock_ns >> 32) as u32);
    put32(to, 36, copy.clock_ns as u32);
}

/// Worker, sequence number and the rest, if there is such an option among these.
pub(super) fn read(mut options: &[u8]) -> Option<(u8, u32, Detail)> {
    loop {
        let len = 4 + 4 * usize::from(options.get(3)? & 0x1f);
        let option = options.get(..len)?;
        if get16(option, 0)? == CLASS && option[2] == TYPE && len >= OPTIONS_LEN {
            return detail(option);
        }
        options = &options[len..];
    }
}

fn detail(option: &[u8]) -> Option<(u8, u32, Detail)> {
    let scored = option[7] & SCORED != 0;
    let detail = Detail {
        decision: *DECISIONS.get(usize::from(option[5]))?,
        problem: DropReason::all().nth(usize::from(option[6]).wrapping_sub(1)),
        rule: RuleHandle(get32(option, 12)?),
        generation: get32(option, 16)?,
        score: scored.then_some(f32::from(get16(option, 20)?) / 65535.0),
        sampling: f32::from_bits(get32(option, 24)?),
        original_len: get32(option, 28)?,
        clock_ns: u64::from(get32(option, 32)?) << 32 | u64::from(get32(option, 36)?),
    };
    Some((option[4], get32(option, 8)?, detail))
}
