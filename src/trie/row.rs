//! What is searched: rows, each a box in the space of packet keys, and packets, each a point in it.

use std::ops::RangeInclusive;

/// Packets looked up together.
pub const BATCH: usize = 32;
/// No row matches.
pub const NO_ROW: u32 = u32::MAX;

/// What a row's source or destination condition looks at. A packet has one 32-bit value of each kind on each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The IPv4 address, or the label that stands for an IPv6 address.
    #[default]
    Address,
    /// Labels of the sets of groups that an endpoint belongs to by its address, its MAC, the VLAN, the VNI.
    AddressSet,
    MacSet,
    VlanSet,
    VniSet,
}

impl Kind {
    pub const COUNT: usize = 5;
}

/// The values of one [`Kind`] whose first `len` bits are those of `value`; all of them when `len` is 0. The other
/// bits of `value` are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side {
    pub kind: Kind,
    pub value: u32,
    pub len: u8,
}

impl Side {
    pub const ANY: Side = Side { kind: Kind::Address, value: 0, len: 0 };

    pub fn new(kind: Kind, value: u32, len: u8) -> Self {
        Self { kind, value: value & mask(len), len }
    }

    pub fn holds(&self, value: u32) -> bool {
        (value ^ self.value) & mask(self.len) == 0
    }

    /// Whether every packet that satisfies `other` satisfies `self`.
    pub fn covers(&self, other: &Side) -> bool {
        self.len == 0 || (self.kind == other.kind && self.len <= other.len && self.holds(other.value))
    }
}

/// The first `len` of 32 bits.
pub fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
}

/// What is asked of protocol and ports. `protocol_mask` says which bits of `protocol` count; the meaning of the bits
/// is the caller's. Empty lists mean any port; ranges may overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    pub protocol: u16,
    pub protocol_mask: u16,
    pub src_ports: Ranges,
    pub dst_ports: Ranges,
}

impl Service {
    pub fn holds(&self, protocol: u16, src_port: u16, dst_port: u16) -> bool {
        (protocol ^ self.protocol) & self.protocol_mask == 0
            && self.src_ports.hold(src_port)
            && self.dst_ports.hold(dst_port)
    }
}

/// A set of ports: ascending, disjoint ranges that do not touch; empty means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranges(Vec<(u16, u16)>);

impl Ranges {
    pub const ANY: Ranges = Ranges(Vec::new());

    /// `None` when ranges are given, but all of them are empty: no port will do.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Option<Self> {
        let mut given = false;
        let ranges = ranges.into_iter().inspect(|_| given = true).filter(|range| range.start() <= range.end());
        let mut sorted: Vec<(u16, u16)> = ranges.map(RangeInclusive::into_inner).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        match merged.as_slice() {
            [] if given => None,
            [(0, u16::MAX)] => Some(Self::ANY),
            _ => Some(Self(merged)),
        }
    }

    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    pub fn hold(&self, port: u16) -> bool {
        self.is_any() || self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// First and last of each range; nothing when any port will do.
    pub fn as_slice(&self) -> &[(u16, u16)] {
        &self.0
    }
}

/// One row. A lookup finds the first row, in the order given, that a packet lies in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub src: Side,
    pub dst: Side,
    pub service: Service,
    pub vlan: Option<u16>,
    pub vni: Option<u32>,
    /// Found along the way, without ending the search: shadow-mode and log rules.
    pub passive: bool,
}

impl Row {
    /// Whether it looks at anything but addresses to tell endpoints.
    pub(super) fn is_kinded(&self) -> bool {
        [self.src, self.dst].iter().any(|side| side.len > 0 && side.kind != Kind::Address)
    }

    pub fn holds(&self, key: &Key) -> bool {
        self.src.holds(key.src[self.src.kind as usize])
            && self.dst.holds(key.dst[self.dst.kind as usize])
            && self.service.holds(key.protocol, key.src_port, key.dst_port)
            && self.vlan.is_none_or(|vlan| vlan == key.vlan)
            && self.vni.is_none_or(|vni| vni == key.vni)
    }
}

/// One packet's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// By [`Kind`].
    pub src: [u32; Kind::COUNT],
    pub dst: [u32; Kind::COUNT],
    pub protocol: u16,
    pub src_port: u16,
    pub dst_port: u16,
    /// `u16::MAX` and `u32::MAX` when there is none.
    pub vlan: u16,
    pub vni: u32,
}

/// Up to [`BATCH`] packets, one array for each value. Arrays that no row looks at need not be filled.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Batch {
    pub len: usize,
    /// By [`Kind`].
    pub src: [[u32; BATCH]; Kind::COUNT],
    pub dst: [[u32; BATCH]; Kind::COUNT],
    pub protocol: [u16; BATCH],
    pub src_port: [u16; BATCH],
    pub dst_port: [u16; BATCH],
    pub vlan: [u16; BATCH],
    pub vni: [u32; BATCH],
}

impl Default for Batch {
    fn default() -> Self {
        let none = [0; BATCH];
        Self {
            len: 0,
            src: [none; Kind::COUNT],
            dst: [none; Kind::COUNT],
            protocol: [0; BATCH],
            src_port: [0; BATCH],
            dst_port: [0; BATCH],
            vlan: [u16::MAX; BATCH],
            vni: [u32::MAX; BATCH],
        }
    }
}

impl Batch {
    /// Adds a packet with all its values.
    ///
    /// # Panics
    /// When there are [`BATCH`] packets already.
    pub fn push(&mut self, key: &Key) {
        let at = self.len;
        for kind in 0..Kind::COUNT {
            self.src[kind][at] = key.src[kind];
            self.dst[kind][at] = key.dst[kind];
        }
        (self.protocol[at], self.src_port[at], self.dst_port[at]) = (key.protocol, key.src_port, key.dst_port);
        (self.vlan[at], self.vni[at]) = (key.vlan, key.vni);
        self.len += 1;
    }

    /// The packet at `at`, as one value.
    pub fn key(&self, at: usize) -> Key {
        Key {
            src: self.src.map(|values| values[at]),
            dst: self.dst.map(|values| values[at]),
            protocol: self.protocol[at],
            src_port: self.src_port[at],
            dst_port: self.dst_port[at],
            vlan: self.vlan[at],
            vni: self.vni[at],
        }
    }
}
