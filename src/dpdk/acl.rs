//! DPDK's own packet classifier, `rte_acl`: the peer that the benchmark of the classification engine measures against,
//! and with linear search one of the two oracles of its tests. No packet of the appliance goes through it.
//!
//! Source: DPDK Programmer's Guide, "Packet Classification and Access Control".

use std::ffi::CString;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ops::RangeInclusive;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::eal::Eal;
use super::error::{DpdkError, check};
use super::ffi;

/// A packet's protocol, addresses and ports, in network order as they lie in a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FiveTuple {
    pub protocol: u8,
    /// The library reads four bytes at a time.
    pub padding: [u8; 3],
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub src_port: [u8; 2],
    pub dst_port: [u8; 2],
}

/// As [`FiveTuple`], with addresses of IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FiveTuple6 {
    pub protocol: u8,
    pub padding: [u8; 3],
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub src_port: [u8; 2],
    pub dst_port: [u8; 2],
}

/// What a packet must be for a rule to match; all in host order. Addresses are `u32`, or `u128` of IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule<A = u32> {
    pub protocol: u8,
    /// Bits of `protocol` that count.
    pub protocol_mask: u8,
    /// Address and length of its prefix.
    pub src: (A, u8),
    pub dst: (A, u8),
    pub src_ports: RangeInclusive<u16>,
    pub dst_ports: RangeInclusive<u16>,
}

/// How the library searches: one packet after the other, or several at once with vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclAlgorithm {
    Scalar,
    Sse,
    Avx2,
    Avx512x16,
    Avx512x32,
}

impl AclAlgorithm {
    /// Narrowest first.
    pub const ALL: [Self; 5] = [Self::Scalar, Self::Sse, Self::Avx2, Self::Avx512x16, Self::Avx512x32];

    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Sse => "sse",
            Self::Avx2 => "avx2",
            Self::Avx512x16 => "avx512x16",
            Self::Avx512x32 => "avx512x32",
        }
    }

    fn raw(self) -> ffi::rte_acl_classify_alg {
        match self {
            Self::Scalar => ffi::rte_acl_classify_alg_RTE_ACL_CLASSIFY_SCALAR,
            Self::Sse => ffi::rte_acl_classify_alg_RTE_ACL_CLASSIFY_SSE,
            Self::Avx2 => ffi::rte_acl_classify_alg_RTE_ACL_CLASSIFY_AVX2,
            Self::Avx512x16 => ffi::rte_acl_classify_alg_RTE_ACL_CLASSIFY_AVX512X16,
            Self::Avx512x32 => ffi::rte_acl_classify_alg_RTE_ACL_CLASSIFY_AVX512X32,
        }
    }
}

/// Packets that `rte_acl` can be told to classify: [`FiveTuple`] and [`FiveTuple6`].
pub trait AclPacket: sealed::Layout {}

impl AclPacket for FiveTuple {}
impl AclPacket for FiveTuple6 {}

/// Rules compiled by `rte_acl`. The first rule that matches wins.
#[derive(Debug)]
pub struct Acl<P: AclPacket = FiveTuple> {
    raw: NonNull<ffi::rte_acl_ctx>,
    memory_bytes: u64,
    _eal: Arc<Eal>,
    _packets: PhantomData<fn(&P)>,
}

// SAFETY: a built context belongs to no thread: classification only reads it, everything else takes it by `&mut` or
// by value.
unsafe impl<P: AclPacket> Send for Acl<P> {}
// SAFETY: as above.
unsafe impl<P: AclPacket> Sync for Acl<P> {}

impl<P: AclPacket> Acl<P> {
    /// Compiles `rules`. The structure comes from DPDK's heap, what compiling needs in between (many times as much)
    /// from the process's. `max_bytes` bounds the structure, 0 leaves it unbounded. From now on all of DPDK may use
    /// the widest vectors of the CPU.
    pub fn build(eal: &Arc<Eal>, rules: &[AclRule<P::Address>], max_bytes: usize) -> Result<Self, DpdkError> {
        let what = || format!("compiling {} rules with rte_acl", rules.len());
        let hint = "raise the EAL's memory: 100,000 rules may need 1 GiB; for DPDK's log set GNOMON_DPDK_LOG=debug";
        // SAFETY: a number by value. It fails, harmlessly, where the user forced a width.
        unsafe { ffi::rte_vect_set_max_simd_bitwidth(WIDEST_VECTOR_BITS) };
        let raw = create::<P>(rules.len()).ok_or_else(|| DpdkError::last(what()).hint(hint))?;
        let mut acl = Self { raw, memory_bytes: 0, _eal: eal.clone(), _packets: PhantomData };
        for (index, rule) in rules.iter().enumerate() {
            let rule = P::raw_rule(data(index as u32), rule);
            // SAFETY: the context is live and was made for so many rules of this size; `rule` is copied.
            let code = unsafe { ffi::rte_acl_add_rules(acl.raw.as_ptr(), (&raw const rule).cast(), 1) };
            check(code, || format!("rule {index} of {}", rules.len()))?;
        }
        let config = layout::<P>(max_bytes);
        // SAFETY: walks the heaps of DPDK under its own locks.
        let before = unsafe { ffi::gn_heap_bytes() };
        // SAFETY: the context is live and nobody else has it yet; `config` is copied.
        let code = unsafe { ffi::rte_acl_build(acl.raw.as_ptr(), &config) };
        check(code, what).map_err(|error| error.hint(hint))?;
        // SAFETY: as above.
        acl.memory_bytes = unsafe { ffi::gn_heap_bytes() }.saturating_sub(before);
        Ok(acl)
    }

    /// Chooses how to search; an error when the CPU or the width that the EAL was told forbids it.
    pub fn select(&mut self, algorithm: AclAlgorithm) -> Result<(), DpdkError> {
        // SAFETY: the context is live and not in use: `&mut`.
        let code = unsafe { ffi::rte_acl_set_ctx_classify(self.raw.as_ptr(), algorithm.raw()) };
        check(code, || format!("rte_acl's algorithm {}", algorithm.name()))
    }

    /// What [`select`](Self::select) takes on this machine, narrowest first.
    pub fn algorithms(&mut self) -> Vec<AclAlgorithm> {
        AclAlgorithm::ALL.into_iter().filter(|algorithm| self.select(*algorithm).is_ok()).collect()
    }

    /// For each packet the position of the first rule that matches plus one, or 0, as the library has it.
    ///
    /// # Panics
    /// When `found` is shorter than `packets`.
    pub fn classify(&self, packets: &[&P], found: &mut [u32]) {
        assert!(found.len() >= packets.len(), "room for every result");
        let (data, count) = (packets.as_ptr().cast_mut().cast(), packets.len() as u32);
        // SAFETY: the context is built. References have the layout of pointers; each points to the bytes that
        // `layout` describes, and the library writes to none of them. `found` has room for one result a packet.
        let code = unsafe { ffi::rte_acl_classify(self.raw.as_ptr(), data, found.as_mut_ptr(), count, 1) };
        debug_assert_eq!(code, 0, "one category is always valid");
    }

    /// Bytes of the compiled structure, without the rules themselves. Exact when nobody else used DPDK's heap
    /// meanwhile.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl<P: AclPacket> Drop for Acl<P> {
    fn drop(&mut self) {
        // SAFETY: made by `create`, freed only here.
        unsafe { ffi::rte_acl_free(self.raw.as_ptr()) };
    }
}

const WIDEST_VECTOR_BITS: u16 = 512;

mod sealed {
    use super::{AclRule, ffi};

    /// How packets lie in memory and rules in the library.
    pub trait Layout: Copy {
        type Address;
        type RawRule;
        /// Words of an address.
        const WORDS: usize;
        /// Offsets of source, destination and source port; the protocol comes first, the destination port last.
        const OFFSETS: [usize; 3];

        fn raw_rule(data: ffi::rte_acl_rule_data, rule: &AclRule<Self::Address>) -> Self::RawRule;
    }
}

impl sealed::Layout for FiveTuple {
    type Address = u32;
    type RawRule = ffi::gn_acl_rule;
    const WORDS: usize = 1;
    const OFFSETS: [usize; 3] = [offset_of!(Self, src), offset_of!(Self, dst), offset_of!(Self, src_port)];

    fn raw_rule(data: ffi::rte_acl_rule_data, rule: &AclRule) -> ffi::gn_acl_rule {
        let [protocol, src_ports, dst_ports] = services(rule);
        let address = |(address, len): (u32, u8)| field(address, len.into());
        ffi::gn_acl_rule { data, field: [protocol, address(rule.src), address(rule.dst), src_ports, dst_ports] }
    }
}

impl sealed::Layout for FiveTuple6 {
    type Address = u128;
    type RawRule = ffi::gn_acl_rule6;
    const WORDS: usize = 4;
    const OFFSETS: [usize; 3] = [offset_of!(Self, src), offset_of!(Self, dst), offset_of!(Self, src_port)];

    fn raw_rule(data: ffi::rte_acl_rule_data, rule: &AclRule<u128>) -> ffi::gn_acl_rule6 {
        let [protocol, src_ports, dst_ports] = services(rule);
        // A prefix of each word.
        let word = |(address, len): (u128, u8), at: u8| {
            field((address >> (96 - 32 * at)) as u32, len.saturating_sub(32 * at).min(32).into())
        };
        let [src, dst] = [rule.src, rule.dst].map(|side| [0, 1, 2, 3].map(|at| word(side, at)));
        let field = [protocol, src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], src_ports, dst_ports];
        ffi::gn_acl_rule6 { data, field }
    }
}

fn create<P: AclPacket>(rules: usize) -> Option<NonNull<ffi::rte_acl_ctx>> {
    // A name that is taken would give the context of that name.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = CString::new(format!("gnomon_acl_{}", NEXT.fetch_add(1, Ordering::Relaxed))).ok()?;
    let param = ffi::rte_acl_param {
        name: name.as_ptr(),
        socket_id: ffi::SOCKET_ID_ANY,
        rule_size: size_of::<P::RawRule>() as u32,
        max_rule_num: rules as u32,
    };
    // SAFETY: `param` and its name are valid and copied; null on failure.
    NonNull::new(unsafe { ffi::rte_acl_create(&param) })
}

/// Where the fields of a packet lie. The library takes four bytes at a time: a word of an address, both ports.
fn layout<P: AclPacket>(max_bytes: usize) -> ffi::rte_acl_config {
    let mut defs = Vec::new();
    let mut field = |kind: u32, size: usize, group: usize, offset: usize| {
        defs.push(ffi::rte_acl_field_def {
            type_: kind as u8,
            size: size as u8,
            field_index: defs.len() as u8,
            input_index: group as u8,
            offset: offset as u32,
        });
    };
    let [src, dst, ports] = P::OFFSETS;
    field(ffi::RTE_ACL_FIELD_TYPE_BITMASK, 1, 0, 0);
    for word in 0..P::WORDS {
        field(ffi::RTE_ACL_FIELD_TYPE_MASK, 4, 1 + word, src + 4 * word);
    }
    for word in 0..P::WORDS {
        field(ffi::RTE_ACL_FIELD_TYPE_MASK, 4, 1 + P::WORDS + word, dst + 4 * word);
    }
    field(ffi::RTE_ACL_FIELD_TYPE_RANGE, 2, 1 + 2 * P::WORDS, ports);
    field(ffi::RTE_ACL_FIELD_TYPE_RANGE, 2, 1 + 2 * P::WORDS, ports + 2);
    let num_fields = defs.len() as u32;
    let mut config = ffi::rte_acl_config { num_categories: 1, num_fields, max_size: max_bytes, ..Default::default() };
    config.defs[..defs.len()].copy_from_slice(&defs);
    config
}

fn data(index: u32) -> ffi::rte_acl_rule_data {
    // A result of 0 means that no rule matches; the highest priority wins.
    ffi::rte_acl_rule_data {
        category_mask: 1,
        priority: ffi::RTE_ACL_MAX_PRIORITY as i32 - index as i32,
        userdata: index + 1,
    }
}

/// Protocol, source and destination ports.
fn services<A>(rule: &AclRule<A>) -> [ffi::rte_acl_field; 3] {
    let ports = |range: &RangeInclusive<u16>| field((*range.start()).into(), (*range.end()).into());
    [field(rule.protocol.into(), rule.protocol_mask.into()), ports(&rule.src_ports), ports(&rule.dst_ports)]
}

fn field(value: u32, mask: u32) -> ffi::rte_acl_field {
    let number = |value: u32| ffi::rte_acl_field_types { u64_: value.into() };
    ffi::rte_acl_field { value: number(value), mask_range: number(mask) }
}
