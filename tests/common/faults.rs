//! A device that misbehaves, the same way for the same seed.

use std::collections::VecDeque;

/// A small generator of pseudo-random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// How often each fault happens: once in so many frames.
#[derive(Clone, Debug)]
pub struct Rates {
    pub drop: usize,
    pub duplicate: usize,
    pub reorder: usize,
    pub truncate: usize,
    pub flip: usize,
    pub length: usize,
    pub runt: usize,
    pub giant: usize,
}

impl Rates {
    /// Every fault often.
    pub fn hostile() -> Self {
        Self { drop: 20, duplicate: 15, reorder: 10, truncate: 8, flip: 4, length: 8, runt: 25, giant: 25 }
    }
}

/// What was done, so that a test can tell that it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub dropped: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub changed: u64,
}

/// Frames in, damaged frames out.
#[derive(Clone, Debug)]
pub struct Faults {
    dice: Dice,
    rates: Rates,
    /// Frames held back, to come out later.
    held: VecDeque<Vec<u8>>,
    pub done: Done,
}

/// One segment of a packet buffer.
const GIANT: usize = 2048;

impl Faults {
    pub fn new(seed: u64, rates: Rates) -> Self {
        Self { dice: Dice::new(seed), rates, held: VecDeque::new(), done: Done::default() }
    }

    /// What comes out when `frame` goes in: none, one or several.
    pub fn pass(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        if self.dice.one_in(self.rates.drop) {
            self.done.dropped += 1;
            return Vec::new();
        }
        let frame = self.damage(frame);
        let mut out = Vec::new();
        if self.dice.one_in(self.rates.duplicate) {
            self.done.duplicated += 1;
            out.push(frame.clone());
        }
        if self.dice.one_in(self.rates.reorder) {
            self.done.reordered += 1;
            self.held.push_back(frame);
        } else {
            out.push(frame);
        }
        if self.held.len() > 8 || (!self.held.is_empty() && self.dice.one_in(4)) {
            out.extend(self.held.pop_front());
        }
        out
    }

    /// What is still held back.
    pub fn rest(&mut self) -> Vec<Vec<u8>> {
        self.held.drain(..).collect()
    }

    fn damage(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let before = frame.clone();
        if self.dice.one_in(self.rates.flip) {
            for _ in 0..=self.dice.below(8) {
                let at = self.dice.below(frame.len());
                frame[at] ^= 1 << self.dice.below(8);
            }
        }
        if self.dice.one_in(self.rates.length) {
            self.lie(&mut frame);
        }
        if self.dice.one_in(self.rates.truncate) {
            frame.truncate(1 + self.dice.below(frame.len()));
        }
        if self.dice.one_in(self.rates.runt) {
            frame.truncate(1 + self.dice.below(13));
        } else if self.dice.one_in(self.rates.giant) {
            let len = frame.len().max(1500 + self.dice.below(GIANT - 1500 + 1)).min(GIANT);
            frame.resize(len, 0x5a);
        }
        self.done.changed += u64::from(frame != before);
        frame
    }

    /// Puts wrong numbers where lengths, offsets and types are wont to be.
    fn lie(&mut self, frame: &mut [u8]) {
        const PLACES: [usize; 12] = [12, 14, 16, 18, 20, 23, 24, 34, 38, 46, 50, 54];
        let at = PLACES[self.dice.below(PLACES.len())];
        let lie = match self.dice.below(4) {
            0 => [0, 0],
            1 => [0xff, 0xff],
            2 => [0, self.dice.below(64) as u8],
            _ => (self.dice.roll() as u16).to_be_bytes(),
        };
        for (offset, byte) in lie.into_iter().enumerate() {
            if let Some(place) = frame.get_mut(at + offset) {
                *place = byte;
            }
        }
    }
}

/// A mixture of everything the parser knows.
pub fn traffic() -> Vec<Vec<u8>> {
    use super::frames::*;
    let (v4, v6) = (("10.0.0.1", "10.0.1.1"), ("fd00::1", "fd00:1::1"));
    let mut all = Vec::new();
    for n in 0..64u16 {
        let host = format!("10.0.0.{}", n + 1);
        let ends = (host.as_str(), "10.0.1.1");
        let back = (ends.1, ends.0);
        all.push(tcp(ends, (2000 + n, 80), SYN, (1, 0), b""));
        all.push(tcp(back, (80, 2000 + n), SYN | ACK, (1, 2), b""));
        all.push(tcp(ends, (2000 + n, 80), ACK | PSH, (2, 2), b"GET / HTTP/1.1\r\n\r\n"));
        all.push(tcp(back, (80, 2000 + n), ACK | FIN, (2, 20), &[7; 700]));
        all.push(tcp(ends, (2000 + n, 80), ACK | FIN, (20, 703), b""));
        all.push(tcp(ends, (3000 + n, 22), SYN, (9, 0), b""));
        all.push(udp(ends, (4000 + n, 53), b"question"));
        all.push(udp(v6, (4000 + n, 53), b"question"));
        all.push(echo(ends, true, n, b"ping"));
        all.push(echo((v6.1, v6.0), false, n, b"pong"));
        all.push(vlan(&vlan(&udp(ends, (5000 + n, 443), &[1; 90]), n), 100));
    }
    let inner = tcp(v4, (1, 2), SYN, (1, 0), b"inner");
    let inner6 = udp(v6, (1, 2), b"inner");
    all.extend([vxlan(v4, 77, &inner), gre(v4, &inner6), gtp_u(v4, 9, &inner6), ip_in_ip(v4, &inner6)]);
    all.extend([vxlan(v6, 78, &vlan(&inner6, 5)), gre(v6, &inner), ip_in_ip(v6, &inner)]);
    all.extend([arp(v4.0, v4.1), neighbour_solicitation(v6), ethernet([1; 6], [2; 6], 0x88cc, b"lldp")]);
    all.extend(udp_fragments(v4, (6, 53), 4, &[3; 2500], 800));
    all.extend(udp_fragments_v6(v6, (6, 53), 5, &[3; 2500], 800));
    all
}
