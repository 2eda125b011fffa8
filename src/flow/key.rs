//! A flow key as the table keeps it: two words and a mask. What is too wide for them, an IPv6 flow or one of a virtual
//! network, has its addresses in the annex (see [`super::slab`]) and 32 bits of its hash to tell it by before these are read.
//!
//! ```text
//! word 0   narrow: lower address (32) │ higher address (32)      wide: VNI (32) │ fingerprint (32)
//! word 1   port of lower (16) │ port of higher (16) │ VLAN (12), IPv6, wide, - - (16) │ protocol (8) │ ICMP errors (5), marks (3)
//! ```

use super::memory::Plain;
use crate::packet::Tuple;

/// Addresses of a wide key, 64 bits at a time from the least significant end of the lower one. All zero of a narrow key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(32))]
pub(super) struct Wide(pub(super) [u64; 4]);

// SAFETY: plain numbers.
unsafe impl Plain for Wide {}

/// Bits of word 1.
const VERSION_6: u64 = 1 << 44;
const WIDE: u64 = 1 << 45;
const VLAN_SHIFT: u32 = 32;
pub(super) const PROTOCOL_SHIFT: u32 = 48;
pub(super) const MARKS_SHIFT: u32 = 56;
/// The place is taken.
pub(super) const LIVE: u64 = 1 << MARKS_SHIFT;
/// The initiator is the higher endpoint.
pub(super) const FROM_HIGH: u64 = 2 << MARKS_SHIFT;
/// By its ports the other end is the client: records are told from there.
pub(super) const TURNED: u64 = 4 << MARKS_SHIFT;
/// ICMP errors about the flow, of the slice, in the other bits.
pub(super) const ICMP_ERRORS_SHIFT: u32 = MARKS_SHIFT + 3;
/// What two packets of one flow have in common in word 1.
const SAME: u64 = LIVE | (LIVE - 1);

/// Key, hash and probable place of a packet's flow, see [`FlowTable::prepare`](super::FlowTable::prepare).
#[derive(Clone, Copy, Debug, Default)]
pub struct Lookup {
    pub(super) words: [u64; 2],
    /// Seeded, of the key: the same for both directions.
    pub(super) hash: u64,
    /// A position, or [`NONE`](super::slab::NONE).
    pub(super) hint: u32,
    /// The packet comes from the key's higher endpoint.
    pub(super) from_high: bool,
    /// Means something only of a wide key.
    pub(super) wide: Wide,
}

const _: () = assert!(size_of::<Lookup>() == 64);

impl Lookup {
    /// Puts the endpoints in order, packs and hashes.
    #[inline]
    pub(super) fn new(tuple: &Tuple, seed: u64) -> Self {
        let mut lookup = Self::default();
        lookup.set(tuple, seed);
        lookup
    }

    /// PERF: in place, because a copy would have to wait for the stores of its parts; inlined, so that the tuple need not
    /// be in memory at all.
    #[inline(always)]
    pub(super) fn set(&mut self, tuple: &Tuple, seed: u64) {
        let rest = u64::from(tuple.vlan & 0xfff) << VLAN_SHIFT | u64::from(tuple.protocol) << PROTOCOL_SHIFT | LIVE;
        if tuple.version == 6 || tuple.vni != 0 || (tuple.src | tuple.dst) >> 32 != 0 {
            self.set_wide(*tuple, rest, seed);
            return;
        }
        let from = (tuple.src as u64) << 16 | u64::from(tuple.src_port);
        let to = (tuple.dst as u64) << 16 | u64::from(tuple.dst_port);
        let (low, high) = (from.min(to), from.max(to));
        let words = [low >> 16 | (high >> 16) << 32, (low & 0xffff) | (high & 0xffff) << 16 | rest];
        self.words = words;
        self.hash = fold(fold(words[0] ^ seed, words[1] ^ SECOND), seed);
        self.hint = u32::MAX;
        self.from_high = from > to;
    }

    #[inline(never)]
    fn set_wide(&mut self, tuple: Tuple, rest: u64, seed: u64) {
        let Tuple { src, dst, src_port, dst_port, vni, .. } = tuple;
        let from_high = (src, src_port) > (dst, dst_port);
        // PERF: selected, not branched to: either way is as likely.
        let pick = |here: u128, there: u128| if from_high { there } else { here };
        let (low, high) = (pick(src, dst), pick(dst, src));
        let ports = u32::from(src_port) | u32::from(dst_port) << 16;
        let ports = ports.rotate_left(16 * u32::from(from_high));
        let version = u64::from(tuple.version == 6) * VERSION_6;
        let rest = rest | u64::from(ports) | version | WIDE;
        let [a, b, c, d] = [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64];
        let (near, far) = (fold(a ^ seed, c ^ SECOND), fold(b ^ seed.rotate_left(32), d ^ THIRD));
        let hash = fold(fold(near ^ rest, far ^ u64::from(vni)), seed);
        // Bits that neither buckets nor tags depend on much.
        let fingerprint = hash.wrapping_mul(SECOND) & FINGERPRINT;
        self.words = [fingerprint | u64::from(vni), rest];
        self.hash = hash;
        self.hint = u32::MAX;
        self.from_high = from_high;
        self.wide = Wide([a, b, c, d]);
    }

    /// Whether an entry's words are those of this key. Of a wide key there is more to compare, see [`Wide`].
    #[inline]
    pub(super) fn agrees(&self, words: [u64; 2]) -> bool {
        (words[0] ^ self.words[0]) | (words[1] ^ self.words[1]) & SAME == 0
    }

    #[inline]
    pub(super) fn is_wide(&self) -> bool {
        is_wide(self.words)
    }
}

const FINGERPRINT: u64 = 0xffff_ffff_0000_0000;
const SECOND: u64 = 0x9e6c_63d0_676a_9a99;
const THIRD: u64 = 0xd6e8_feb8_6659_fd93;

/// One multiply-and-fold step (folded 128-bit product).
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xa076_1d64_78bd_642f) * u128::from(b ^ 0xe703_7ed1_a0b4_28db);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Whether an entry's key has a part in the annex.
#[inline]
pub(super) fn is_wide(words: [u64; 2]) -> bool {
    words[1] & WIDE != 0
}

/// The key as a tuple from the lower to the higher endpoint. `annex` gives the wide part of a wide key.
pub(super) fn unpack(words: [u64; 2], annex: impl FnOnce() -> Wide) -> Tuple {
    let [first, rest] = words;
    let (src, dst, vni) = if is_wide(words) {
        let Wide([a, b, c, d]) = annex();
        (u128::from(a) | u128::from(b) << 64, u128::from(c) | u128::from(d) << 64, first as u32)
    } else {
        ((first as u32).into(), u128::from(first >> 32), 0)
    };
    Tuple {
        src,
        dst,
        src_port: rest as u16,
        dst_port: (rest >> 16) as u16,
        protocol: (rest >> PROTOCOL_SHIFT) as u8,
        version: if rest & VERSION_6 != 0 { 6 } else { 4 },
        vlan: (rest >> VLAN_SHIFT) as u16 & 0xfff,
        vni,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{FlowKey, Orientation};

    fn tuples() -> impl Strategy<Value = Tuple> {
        // Few values of each field, so that keys often differ in one of them alone.
        let four = prop::sample::select(vec![0u128, 1, 0x0a00_0001, 0xffff_ffff]);
        let six = prop::sample::select(vec![0u128, 1, 1 << 64, u128::MAX, 0x0a00_0001, 5 << 100]);
        let ports = || prop::sample::select(vec![0u16, 1, 53, 0xffff]);
        let rest = (ports(), ports(), prop::sample::select(vec![1u8, 6, 17]), 0u16..3, 0u32..3);
        prop_oneof![(four.clone(), four, Just(4u8), rest.clone()), (six.clone(), six, Just(6u8), rest)].prop_map(
            |(src, dst, version, (src_port, dst_port, protocol, vlan, vni))| Tuple {
                src,
                dst,
                src_port,
                dst_port,
                protocol,
                version,
                vlan: vlan * 2047,
                vni: vni * 0x7fff_ffff,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn packed_keys_are_equal_where_keys_are(one in tuples(), two in tuples(), seed: u64) {
            let (a, b) = (Lookup::new(&one, seed), Lookup::new(&two, seed));
            let same = FlowKey::of(one).0 == FlowKey::of(two).0;
            prop_assert_eq!(a.agrees(b.words) && (!a.is_wide() || a.wide == b.wide), same);
            if same {
                prop_assert_eq!(a.hash, b.hash);
            } else {
                prop_assert_ne!(a.hash, b.hash, "64 bits");
            }
            let back = Lookup::new(&one.reversed(), seed);
            prop_assert_eq!((back.words, back.wide, back.hash), (a.words, a.wide, a.hash));
            let (key, way) = FlowKey::of(one);
            prop_assert_eq!(unpack(a.words, || a.wide), key.tuple(Orientation::LowToHigh));
            prop_assert_eq!(a.from_high, way == Orientation::HighToLow);
            let dead = [a.words[0], a.words[1] & !LIVE];
            prop_assert!(!a.agrees(dead));
        }
    }
}
