//! Which worker owns a packet: by its two addresses, whichever way round.

use super::fragments::Fragments;
use super::headers::{Headers, KeyFrom};
use super::key::Addr;
use super::quoted::quote_of;
use super::subject::subject;

/// Says of packets which worker owns them, one after the other: later fragments of a tunnel go where the first one went,
/// by what it carries.
#[derive(Debug)]
pub struct Spreader {
    from: KeyFrom,
    workers: usize,
    fragments: Option<Fragments>,
}

impl Spreader {
    /// Among `workers`; `fragments` is memory for fragments of tunnels, which a key from the outer header does not need.
    pub fn new(from: KeyFrom, workers: usize, fragments: impl FnOnce() -> Fragments) -> Self {
        Self { from, workers, fragments: (from == KeyFrom::Inner).then(fragments) }
    }

    /// Worker of the packet in `frame`, whose headers were parsed; as [`spread`] but for fragments of tunnels. `clock_ns`
    /// never goes back.
    #[inline]
    pub fn worker(&mut self, headers: &Headers, frame: &[u8], wire_len: u32, clock_ns: u64) -> usize {
        match &mut self.fragments {
            Some(fragments) if headers.outer.fragment.is_some() => {
                let Some(mut subject) = subject(headers, self.from) else { return 0 };
                fragments.resolve(headers, self.from, &mut subject, clock_ns);
                scale(fold(subject.tuple.src, subject.tuple.dst), self.workers)
            }
            _ => spread(headers, frame, wire_len, self.from, self.workers),
        }
    }
}

/// Worker among `workers` of the packet in `frame`, whose headers were parsed. Ports do not count, so fragments stay
/// with their flow, as far as the header that the key is taken from is in all of them; an ICMP error goes where the packet went that it quotes; frames without IP go to worker 0.
#[inline]
pub fn spread(headers: &Headers, frame: &[u8], wire_len: u32, from: KeyFrom, workers: usize) -> usize {
    let Some(ip) = headers.key_ip(from) else { return 0 };
    let folded = match quote_of(headers, frame, wire_len, from) {
        // Errors that are one flow have one mark, and so one worker.
        Some(quoted) => quoted.mark(),
        None => fold(ip.src, ip.dst),
    };
    scale(folded, workers)
}

/// To the range, without division.
fn scale(folded: u16, workers: usize) -> usize {
    (usize::from(folded) * workers.max(1)) >> 16
}

/// Two addresses, whichever way round, as one number.
pub(super) fn fold(src: Addr, dst: Addr) -> u16 {
    let both = (src ^ dst) ^ src.wrapping_add(dst).rotate_left(29);
    let folded = (both as u64 ^ (both >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (folded >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;
    use crate::packet::samples::{ethernet, icmp, udp, v4_between};

    fn between(src: u128, dst: u128) -> Headers {
        let mut headers = Headers::default();
        headers.outer.version = 4;
        (headers.outer.src, headers.outer.dst) = (src, dst);
        headers
    }

    #[test]
    fn both_directions_meet_and_pairs_spread_evenly() {
        let mut counts = [0u32; 3];
        for i in 0..3000u128 {
            let (a, b) = (0x0a00_0000 + i, 0x0a01_0000 + i * 7);
            let there = spread(&between(a, b), &[], 0, KeyFrom::Outer, 3);
            assert_eq!(there, spread(&between(b, a), &[], 0, KeyFrom::Outer, 3));
            counts[there] += 1;
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
        assert_eq!(spread(&Headers::default(), &[], 0, KeyFrom::Outer, 3), 0);
    }
    #[test]
    fn errors_go_where_the_packet_went_that_they_quote() {
        let mut moved = 0;
        for host in 0..200 {
            let lost = ethernet(0x0800, &v4_between(1, [10, 0, 0, 9], [10, 0, 1, host], 17, &udp(1000, 53, b"q")));
            let quote = icmp(11, &lost[14..]);
            let error = ethernet(0x0800, &v4_between(1, [10, 9, 9, 9], [10, 0, 0, 9], 1, &quote));
            let of = |frame: &[u8]| {
                let mut headers = Headers::default();
                parse(frame, frame.len() as u32, &mut headers).expect("well formed");
                let by_itself = scale(fold(headers.outer.src, headers.outer.dst), 5);
                (spread(&headers, frame, frame.len() as u32, KeyFrom::Outer, 5), by_itself)
            };
            assert_eq!(of(&lost).0, of(&error).0);
            moved += u32::from(of(&error).0 != of(&error).1);
        }
        assert!(moved > 100, "{moved}");
    }
}
