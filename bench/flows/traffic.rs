//! Packets of many flows, and the same packets' keys as `rte_hash` wants them.

use gnomon::dpdk::BURST;
use gnomon::flow::FlowPacket;
use gnomon::packet::{FlowKey, Orientation, Tuple};

/// All fields of a flow key, as bytes: both address families, VLAN and VNI.
pub type Key = [u8; 48];

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
    pub keys: Vec<Key>,
    /// The packet comes from the higher endpoint.
    pub from_higher: Vec<bool>,
    flows: u32,
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

/// The tuple of a flow, from its initiator.
pub fn tuple(flow: u32) -> Tuple {
    Tuple {
        src: (0x0a00_0000 + (flow >> 6)).into(),
        dst: (0xc0a8_0000 + (flow & 63)).into(),
        src_port: 1024 + (flow.wrapping_mul(0x9e37) % 60_000) as u16,
        dst_port: 443,
        protocol: 17,
        version: 4,
        ..Tuple::default()
    }
}

pub fn key(tuple: &Tuple) -> (Key, bool) {
    let (key, way) = FlowKey::of(*tuple);
    let low = key.tuple(Orientation::LowToHigh);
    let mut bytes = [0; 48];
    bytes[..16].copy_from_slice(&low.src.to_be_bytes());
    bytes[16..32].copy_from_slice(&low.dst.to_be_bytes());
    bytes[32..34].copy_from_slice(&low.src_port.to_be_bytes());
    bytes[34..36].copy_from_slice(&low.dst_port.to_be_bytes());
    bytes[36..38].copy_from_slice(&low.vlan.to_be_bytes());
    bytes[38..42].copy_from_slice(&low.vni.to_be_bytes());
    (bytes[42], bytes[43]) = (low.protocol, low.version);
    (bytes, way == Orientation::HighToLow)
}

impl Traffic {
    pub fn new(flows: u32, mix: Mix) -> Self {
        Self {
            packets: Vec::with_capacity(TURN),
            keys: Vec::with_capacity(TURN),
            from_higher: Vec::with_capacity(TURN),
            flows,
            mix,
            dice: Dice(u64::from(flows)),
            clock: BEGIN + 1_000_000,
        }
    }

    /// Other packets, a little later.
    pub fn next_turn(&mut self) {
        self.packets.clear();
        self.keys.clear();
        self.from_higher.clear();
        for _ in 0..TURN {
            let roll = self.dice.roll();
            let there = tuple(self.pick(roll));
            let tuple = if roll & 1 == 0 { there } else { there.reversed() };
            let bytes = 60 + (roll >> 4) as u32 % 1400;
            self.clock += 100;
            let (key, from_higher) = key(&tuple);
            self.packets.push(FlowPacket {
                tuple,
                clock_ns: self.clock,
                bytes,
                payload_bytes: bytes - 42,
                ..FlowPacket::default()
            });
            self.keys.push(key);
            self.from_higher.push(from_higher);
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
