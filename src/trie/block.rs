//! The parts that the search structure is made of.
//!
//! ```text
//! entry (64 bits)  inner │ first entry of its table, window (field, shift, bits), has a rest │ least rank in it
//!                  leaf  │ first block, number of blocks                                     │ least rank in it
//!
//! table   [ rest? ] [ entry 0 ] … [ entry 2^bits − 1 ]      rows too wide for the window are in the rest
//! block   16 rows, one array for each condition, ascending by rank; unused lanes match nothing
//! ```

use super::row::{Ranges, Service};

/// Rows compared at once.
pub(super) const LANES: usize = 16;
/// Bits of a rank in a lane that say what more there is to do.
pub(super) const FLAG_BITS: u32 = 2;
/// The row does not end the search.
pub(super) const PASSIVE: u32 = 1;
/// The row asks for more than a block compares: a VLAN or VNI, or one of several ranges of ports.
pub(super) const MORE: u32 = 2;
/// Ranks are below this.
pub(super) const RANK_LIMIT: u32 = (u32::MAX >> FLAG_BITS) - 1;
/// Most blocks of a leaf.
pub(super) const LEAF_LIMIT: usize = (1 << 14) - 1;
/// Most bits that one table tells apart.
pub(super) const WINDOW_LIMIT: u32 = 12;

/// Services that fit a packet's set, a bit each. Number 0 is none's: it is in no set.
pub(super) const SERVICE_BITS: usize = 512;

/// What a table's window looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Field {
    /// By [`Kind`](super::Kind).
    Src0 = 0,
    Dst0 = 5,
    Vlan = 10,
    Vni = 11,
    SrcPortClass = 12,
    DstPortClass = 13,
    ProtocolClass = 14,
    /// Of the leading bits of source and destination.
    Hash = 15,
}

pub(super) const FIELDS: usize = 16;

/// By number.
pub(super) const FIELD_NAMES: [&str; FIELDS] = [
    "source address",
    "source group set",
    "source group set by MAC",
    "source group set by VLAN",
    "source group set by VNI",
    "destination address",
    "destination group set",
    "destination group set by MAC",
    "destination group set by VLAN",
    "destination group set by VNI",
    "VLAN",
    "VNI",
    "source port class",
    "destination port class",
    "protocol class",
    "hash of source and destination",
];

/// One slot of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry(pub(super) u64);

pub(super) const SHIFT_AT: u32 = 32;
pub(super) const BITS_AT: u32 = 37;
pub(super) const FIELD_AT: u32 = 41;
/// Two bits: 0 nothing, 1 a leaf with rows, 2 a table, 3 a table with a rest.
const SORT_AT: u32 = 46;
pub(super) const LEAF: u64 = 1 << SORT_AT;
pub(super) const INNER: u64 = 2 << SORT_AT;
pub(super) const WITH_REST: u64 = 3 << SORT_AT;
pub(super) const LEAST_AT: u32 = 48;

/// The bits of a key that choose a table's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) field: u8,
    pub(super) shift: u32,
    pub(super) bits: u32,
}

impl Entry {
    /// A leaf without rows.
    pub(super) const EMPTY: Entry = Entry(0xffff << LEAST_AT);

    pub(super) fn leaf(block: u32, blocks: usize, least: u16) -> Self {
        Self(u64::from(block) | (blocks as u64) << SHIFT_AT | LEAF | u64::from(least) << LEAST_AT)
    }

    pub(super) fn inner(base: u32, window: Window, rest: bool, least: u16) -> Self {
        let window = u64::from(window.shift) << SHIFT_AT
            | u64::from(window.bits) << BITS_AT
            | u64::from(window.field) << FIELD_AT;
        Self(u64::from(base) | window | if rest { WITH_REST } else { INNER } | u64::from(least) << LEAST_AT)
    }

    /// Whether there are rows in this very leaf.
    #[inline(always)]
    pub(super) fn is_leaf(self) -> bool {
        (self.0 >> SORT_AT) & 3 == 1
    }

    #[inline(always)]
    pub(super) fn is_inner(self) -> bool {
        self.0 & INNER != 0
    }

    #[inline(always)]
    pub(super) fn has_rest(self) -> bool {
        self.0 & WITH_REST == WITH_REST
    }

    /// Of an inner entry: where its table's slot 0 is. The rest, if any, is the slot before.
    #[inline(always)]
    pub(super) fn base(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(super) fn window(self) -> Window {
        Window {
            field: (self.0 >> FIELD_AT) as u8 & 31,
            shift: (self.0 >> SHIFT_AT) as u32 & 31,
            bits: (self.0 >> BITS_AT) as u32 & 15,
        }
    }

    /// Of an inner entry: the slot of a key.
    #[inline(always)]
    pub(super) fn slot(self, key: u32) -> u32 {
        let window = self.window();
        self.base() + ((key >> window.shift) & ((1 << window.bits) - 1))
    }

    #[inline(always)]
    pub(super) fn blocks(self) -> usize {
        (self.0 >> SHIFT_AT) as usize & LEAF_LIMIT
    }

    /// Of a leaf: without its first block, which takes so many places of the arena.
    #[inline(always)]
    pub(super) fn next_block(self, places: u64) -> Self {
        Self(self.0.wrapping_add(places).wrapping_sub(1 << SHIFT_AT))
    }

    /// The least rank below here, scaled down.
    #[inline(always)]
    pub(super) fn least(self) -> u16 {
        (self.0 >> LEAST_AT) as u16
    }

    /// Elsewhere.
    pub(super) fn with_base(self, base: u32) -> Self {
        Self(self.0 & !0xffff_ffff | u64::from(base))
    }

    pub(super) fn with_rest(self) -> Self {
        Self(self.0 | WITH_REST)
    }

    /// With another number in the place of the least rank: on lists, the packet's.
    #[inline(always)]
    pub(super) fn with_least(self, least: u16) -> Self {
        Self(self.0 & !(0xffff << LEAST_AT) | u64::from(least) << LEAST_AT)
    }
}

/// Sixteen rows: four cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Block {
    pub(super) src: [u32; LANES],
    pub(super) dst: [u32; LANES],
    /// `rank << FLAG_BITS | flags`.
    pub(super) rank: [u32; LANES],
    /// How many low bits of source and destination do not count: see [`SideCode`].
    pub(super) src_code: [u8; LANES],
    pub(super) dst_code: [u8; LANES],
    /// Low and high part of the service number as [`service_parts`] has it.
    pub(super) service_byte: [u8; LANES],
    pub(super) service_bit: [u8; LANES],
}

impl Block {
    pub(super) const BLANK: Block = Block {
        src: [0; LANES],
        dst: [0; LANES],
        rank: [u32::MAX; LANES],
        src_code: [0; LANES],
        dst_code: [0; LANES],
        service_byte: [0; LANES],
        service_bit: [0; LANES],
    };

    pub(super) fn set(&mut self, lane: usize, row: &Lane) {
        self.src[lane] = row.src;
        self.dst[lane] = row.dst;
        self.rank[lane] = row.rank;
        self.src_code[lane] = row.src_code;
        self.dst_code[lane] = row.dst_code;
        self.service_byte[lane] = row.service_byte;
        self.service_bit[lane] = row.service_bit;
    }

    pub(super) fn lane(&self, lane: usize) -> Lane {
        Lane {
            src: self.src[lane],
            dst: self.dst[lane],
            rank: self.rank[lane],
            src_code: self.src_code[lane],
            dst_code: self.dst_code[lane],
            service_byte: self.service_byte[lane],
            service_bit: self.service_bit[lane],
        }
    }

    /// Lanes in use.
    pub(super) fn len(&self) -> usize {
        self.rank.iter().take_while(|rank| **rank != u32::MAX).count()
    }
}

/// Protocol and ports of sixteen rows: behind each block where there are too many services for sets.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct PortBlock {
    pub(super) src_first: [u16; LANES],
    pub(super) src_last: [u16; LANES],
    pub(super) dst_first: [u16; LANES],
    pub(super) dst_last: [u16; LANES],
    pub(super) protocol: [u16; LANES],
    pub(super) protocol_mask: [u16; LANES],
    unused: [u16; 2 * LANES],
}

impl PortBlock {
    /// No packet lies in an unused lane: its first port is above its last.
    pub(super) const BLANK: PortBlock = PortBlock {
        src_first: [u16::MAX; LANES],
        src_last: [0; LANES],
        dst_first: [u16::MAX; LANES],
        dst_last: [0; LANES],
        protocol: [0; LANES],
        protocol_mask: [0; LANES],
        unused: [0; 2 * LANES],
    };

    /// Ports from the first of a service to its last; those of several ranges are looked at again, see [`MORE`].
    pub(super) fn set(&mut self, lane: usize, service: &Service) {
        let hull = |ranges: &Ranges| match ranges.as_slice() {
            [] => (0, u16::MAX),
            [(first, _), ..] => (*first, ranges.as_slice().last().map_or(u16::MAX, |(_, last)| *last)),
        };
        (self.src_first[lane], self.src_last[lane]) = hull(&service.src_ports);
        (self.dst_first[lane], self.dst_last[lane]) = hull(&service.dst_ports);
        (self.protocol[lane], self.protocol_mask[lane]) = (service.protocol, service.protocol_mask);
    }

    /// As a place of the arena of blocks has it.
    pub(super) fn as_block(&self) -> Block {
        // SAFETY: both are plain numbers, without gaps and of one size.
        unsafe { std::mem::transmute_copy(self) }
    }
}

const _: () = assert!(size_of::<PortBlock>() == size_of::<Block>() && align_of::<PortBlock>() == align_of::<Block>());

/// One row as a block has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) src: u32,
    pub(super) dst: u32,
    pub(super) rank: u32,
    pub(super) src_code: u8,
    pub(super) dst_code: u8,
    pub(super) service_byte: u8,
    pub(super) service_bit: u8,
}
