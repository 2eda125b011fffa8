//! Packets of many flows, and their keys as `rte_hash` wants them.

use gnomon::dpdk::BURST;
use gnomon::flow::FlowPacket;
use gnomon::packet::Tuple;

/// A flow key as `rte_hash` compares it: bytes, so it must have no padding.
pub trait Key: Copy + Default {
    const NAME: &str;

    /// The key of a tuple, and whether it comes from the higher endpoint.
    fn of(tuple: &Tuple) -> (Self, bool);
}

/// What every key of gnomon's table may hold: both address families, VLAN and VNI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FullKey {
    low: u128,
    high: u128,
    ports: [u16; 2],
    rest: [u8; 4],
    vni: u32,
    padding: u32,
}

/// For a table that is to hold IPv4 flows and no others, without VNI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ShortKey {
    low: u32,
    high: u32,
    ports: [u16; 2],
    rest: [u8; 4],
}

fn rest(tuple: &Tuple) -> [u8; 4] {
    let [a, b] = tuple.vlan.to_ne_bytes();
    [tuple.protocol, tuple.version, a, b]
}

impl Key for FullKey {
    const NAME: &str = "rte_hash";

    #[inline]
    fn of(tuple: &Tuple) -> (Self, bool) {
        let from_higher = (tuple.src, tuple.src_port) > (tuple.dst, tuple.dst_port);
        // Selected, not branched to: either way is as likely.
        let pick = |here: u128, there: u128| if from_higher { there } else { here };
        let ports = u32::from(tuple.src_port) << 16 | u32::from(tuple.dst_port);
        let ports = ports.rotate_left(16 * u32::from(from_higher));
        let key = Self {
            low: pick(tuple.src, tuple.dst),
            high: pick(tuple.dst, tuple.src),
            ports: [(ports >> 16) as u16, ports as u16],
            rest: rest(tuple),
            vni: tuple.vni,
            padding: 0,
        };
        (key, from_higher)
    }
}

impl Key for ShortKey {
    const NAME: &str = "rte_hash of IPv4 alone, 16-byte keys";

    #[inline]
    fn of(tuple: &Tuple) -> (Self, bool) {
        let end = |address: u128, port: u16| (address as u64) << 16 | u64::from(port);
        let (from, to) = (end(tuple.src, tuple.src_port), end(tuple.dst, tuple.dst_port));
        let (low, high) = (from.min(to), from.max(to));
        let ports = [low as u16, high as u16];
        (Self { low: (low >> 16) as u32, high: (high >> 16) as u32, ports, rest: rest(tuple) }, from > to)
    }
}

/// Packets of a turn: few enough to stay in the second cache beside a small table.
pub const TURN: usize = 32 * BURST;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    Uniform,
    /// Exponent 1: the n-th flow has 1/n of the first one's packets.
    Zipf,
}

impl Mix {
    pub fn name(self) -> &'static str {
        match self {
            Mix::Uniform => "uniform",
            Mix::Zipf => "zipf",
        }
    }
}

pub struct Traffic {
    pub packets: Vec<FlowPacket>,
    flows: u32,
    family: Family,
    mix: Mix,
    dice: Dice,
    clock: u64,
}

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

pub const BEGIN: u64 = 1_700_000_000_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Four,
    Six,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::Four => "IPv4",
            Family::Six => "IPv6",
        }
    }
}

/// The tuple of a flow, from its initiator.
pub fn tuple(flow: u32, family: Family) -> Tuple {
    let (src, dst, version) = match family {
        Family::Four => (0x0a00_0000, 0xc0a8_0000, 4),
        Family::Six => (0xfd00 << 112, 0xfd01 << 112, 6),
    };
    Tuple {
        src: src + u128::from(flow >> 6),
        dst: dst + u128::from(flow & 63),
        src_port: 1024 + (flow.wrapping_mul(0x9e37) % 60_000) as u16,
        dst_port: 443,
        protocol: 17,
        version,
        ..Tuple::default()
    }
}

impl Traffic {
    pub fn new(flows: u32, family: Family, mix: Mix) -> Self {
        Self {
            packets: Vec::with_capacity(TURN),
            flows,
            family,
            mix,
            dice: Dice(u64::from(flows)),
            // The second mix comes after the first.
            clock: BEGIN + 1_000_000_000 * (1 + mix as u64),
        }
    }

    /// Other packets, a little later.
    pub fn next_turn(&mut self) {
        self.packets.clear();
        for _ in 0..TURN {
            let roll = self.dice.roll();
            let there = tuple(self.pick(roll), self.family);
            let tuple = if roll & 1 == 0 { there } else { there.reversed() };
            let bytes = 60 + (roll >> 4) as u32 % 1400;
            self.clock += 100;
            self.packets.push(FlowPacket {
                tuple,
                clock_ns: self.clock,
                bytes,
                payload_bytes: bytes - 42,
                ..FlowPacket::default()
            });
        }
    }

    fn pick(&self, roll: u64) -> u32 {
        let share = (roll >> 11) as f64 / (1u64 << 53) as f64;
        let rank = match self.mix {
            Mix::Uniform => return (share * f64::from(self.flows)) as u32,
            // The inverse of ln(n + 1) / ln(N + 1).
            Mix::Zipf => (share * f64::from(self.flows + 1).ln()).exp() as u32 - 1,
        };
        // Frequent flows are neighbours nowhere.
        (u64::from(rank.min(self.flows - 1)) * 0x9e37_79b1 % u64::from(self.flows)) as u32
    }
}
