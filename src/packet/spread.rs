//! Which worker owns a packet: by its two addresses, whichever way round.

use super::headers::{Headers, KeyFrom};

/// Worker of a packet among `workers`. Ports do not count, so fragments stay with their flow; frames
/// without IP go to worker 0.
pub fn spread(headers: &Headers, from: KeyFrom, workers: usize) -> usize {
    let Some(ip) = headers.key_ip(from) else { return 0 };
    let both = (ip.src ^ ip.dst) ^ ip.src.wrapping_add(ip.dst).rotate_left(29);
    let folded = (both as u64 ^ (both >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The high bits scaled to the range: no division.
    ((u128::from(folded) * workers.max(1) as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let there = spread(&between(a, b), KeyFrom::Outer, 3);
            assert_eq!(there, spread(&between(b, a), KeyFrom::Outer, 3));
            counts[there] += 1;
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
        assert_eq!(spread(&Headers::default(), KeyFrom::Outer, 3), 0);
    }
}
