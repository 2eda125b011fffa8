//! Sixteen lanes at a time: rows of a block, or packets on their way.
#![cfg(target_arch = "x86_64")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::block::{
    BITS_AT, Block, Entry, FIELD_AT, FLAG_BITS, INNER, LANES, LEAF, LEAST_AT, PortBlock, SHIFT_AT, WINDOW_LIMIT,
    WITH_REST,
};
use super::super::row::{BATCH, Batch};
use super::super::tree::Tree;
use super::{CAPACITY, Found, List, Lists, Point, Prepared, SETS, Vectors, WIDE, avx2, prefetch_leaves, search};

pub(super) struct Avx512;

impl Vectors for Avx512 {
    #[inline(always)]
    unsafe fn lanes<const KINDED: bool, const SERVICES: u8>(block: &Block, point: Point<'_>) -> u32 {
        // SAFETY: the processor has the instructions by the caller's word; loads stay inside block and point.
        unsafe {
            let side = |rows: &[u32; 16], codes: &[u8; 16], keys: &[u32]| {
                let rows = _mm512_load_si512(rows.as_ptr().cast());
                let codes = _mm512_cvtepu8_epi32(_mm_load_si128(codes.as_ptr().cast()));
                if KINDED {
                    let keys = _mm512_broadcast_i32x8(_mm256_load_si256(keys.as_ptr().cast()));
                    let keys = _mm512_permutexvar_epi32(_mm512_srli_epi32::<5>(codes), keys);
                    shift_right(_mm512_xor_si512(rows, keys), _mm512_and_si512(codes, _mm512_set1_epi32(31)))
                } else {
                    shift_right(_mm512_xor_si512(rows, _mm512_set1_epi32(*keys.get_unchecked(0) as i32)), codes)
                }
            };
            let src = side(&block.src, &block.src_code, point.src);
            let differing = _mm512_or_si512(src, side(&block.dst, &block.dst_code, point.dst));
            let served = if SERVICES == WIDE { !0 } else { served(block, point) };
            u32::from(_mm512_mask_testn_epi32_mask(served, differing, differing))
        }
    }

    #[inline(always)]
    unsafe fn ports(ports: &PortBlock, packed: u64) -> u32 {
        // SAFETY: the processor has AVX2 and BMI2 too.
        unsafe { avx2::in_ports(ports, packed) }
    }

    #[inline(always)]
    unsafe fn walk(
        tree: &Tree,
        prepared: &Prepared,
        count: usize,
        root: Entry,
        found: &Found,
        lists: &mut Lists,
    ) -> usize {
        let Lists { open, next, leaves } = lists;
        let (mut open, mut next) = (open, next);
        // SAFETY: the processor has the instructions by the caller's word. Lists are read below their lengths.
        unsafe {
            let mut walk = Walk {
                tables: tree.tables.as_ptr().cast(),
                scale: _mm_cvtsi32_si128((tree.scale + FLAG_BITS) as i32),
                ranks: [0, LANES].map(|from| _mm512_loadu_si512(found.ranks.as_ptr().add(from).cast())),
                next_len: 0,
                leaves_len: 0,
            };
            for from in (0..count).step_by(LANES) {
                let (lanes, tables) = (first(count - from), Entries::of_packets(root, from));
                if root.is_inner() {
                    let keys = prepared.keys[usize::from(root.window().field)].as_ptr().add(from);
                    let keys = _mm512_maskz_loadu_epi32(lanes, keys.cast());
                    walk.enter(tables, tables.upper(), keys, lanes, open, leaves);
                } else {
                    walk.keep(Entries::all(root), tables, tables.upper(), lanes, open, leaves);
                }
            }
            let mut fetched = 0;
            loop {
                fetched = prefetch_leaves(tree, leaves, fetched, walk.leaves_len);
                let open_len = std::mem::take(&mut walk.next_len);
                if open_len == 0 {
                    return walk.leaves_len;
                }
                for at in (0..open_len).step_by(LANES) {
                    let lanes = first(open_len - at);
                    let tables = Entries::on(open, at, lanes);
                    let upper = tables.upper();
                    walk.enter(tables, upper, keys_of(prepared, upper, lanes), lanes, next, leaves);
                }
                std::mem::swap(&mut open, &mut next);
            }
        }
    }
}

/// Vectors are stored whole behind the end of a list, half a vector's entries at a time.
const _: () = assert!(CAPACITY.is_multiple_of(LANES) && BATCH == 2 * LANES);

/// Where things are in the upper halves of entries.
const UPPER: u32 = SHIFT_AT;
const UPPER_BITS: u32 = BITS_AT - UPPER;
const UPPER_FIELD: u32 = FIELD_AT - UPPER;
const UPPER_LEAST: u32 = LEAST_AT - UPPER;
const UPPER_SORT: i32 = (WITH_REST >> UPPER) as i32;
const UPPER_INNER: i32 = (INNER >> UPPER) as i32;
const UPPER_LEAF: i32 = (LEAF >> UPPER) as i32;
/// The number of a packet's key is `field << KEY_FIELD | packet`.
const KEY_FIELD: u32 = BATCH.trailing_zeros();

/// The first `count` lanes, or all.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1_u32 << count.min(LANES)) - 1) as __mmask16
}

/// The entries of sixteen lanes, or zeros: nothing.
#[derive(Clone, Copy)]
struct Entries([__m512i; 2]);

/// # Safety
/// Of all its functions: the processor has AVX-512 F, BW, VL, DQ.
impl Entries {
    /// The same for all.
    #[inline(always)]
    unsafe fn all(entry: Entry) -> Self {
        // SAFETY: by the caller's word.
        unsafe { Self([_mm512_set1_epi64(entry.0 as i64); 2]) }
    }

    /// The same for all, with packets' numbers where the least rank was.
    #[inline(always)]
    unsafe fn of_packets(entry: Entry, from: usize) -> Self {
        // SAFETY: by the caller's word.
        unsafe {
            let number = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
            let half = |from: usize| {
                let entry = _mm512_set1_epi64(entry.with_least(from as u16).0 as i64);
                _mm512_add_epi64(entry, _mm512_slli_epi64::<LEAST_AT>(number))
            };
            Self([half(from), half(from + LANES / 2)])
        }
    }

    /// # Safety
    /// The places of `lanes` behind `at` were written.
    #[inline(always)]
    unsafe fn on(list: &List, at: usize, lanes: __mmask16) -> Self {
        // SAFETY: a load reads only the lanes of its mask.
        unsafe {
            let list = list.as_ptr().wrapping_add(at);
            Self([
                _mm512_maskz_loadu_epi64(lanes as __mmask8, list.cast()),
                _mm512_maskz_loadu_epi64((lanes >> 8) as __mmask8, list.wrapping_add(LANES / 2).cast()),
            ])
        }
    }

    /// # Safety
    /// The slots of `lanes` are slots of `tables`.
    #[inline(always)]
    unsafe fn at(tables: *const i64, slots: __m512i, lanes: __mmask16) -> Self {
        // SAFETY: a gather reads only the lanes of its mask.
        unsafe {
            let low = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(slots));
            let high = _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(slots));
            let none = _mm512_setzero_si512();
            Self([
                _mm512_mask_i64gather_epi64::<8>(none, lanes as __mmask8, low, tables),
                _mm512_mask_i64gather_epi64::<8>(none, (lanes >> 8) as __mmask8, high, tables),
            ])
        }
    }

    #[inline(always)]
    unsafe fn base(self) -> __m512i {
        // SAFETY: by the caller's word.
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            _mm512_permutex2var_epi32(self.0[0], even, self.0[1])
        }
    }

    /// All but the base.
    #[inline(always)]
    unsafe fn upper(self) -> __m512i {
        // SAFETY: by the caller's word.
        unsafe {
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            _mm512_permutex2var_epi32(self.0[0], odd, self.0[1])
        }
    }

    /// Appends those of `lanes`, with the packets of `tables`, and gives the new length. Compressed in registers, for
    /// compressing to memory is slow on some processors.
    ///
    /// # Safety
    /// The list has room for them and eight more.
    #[inline(always)]
    unsafe fn append(self, tables: Self, lanes: __mmask16, list: &mut List, len: usize) -> usize {
        debug_assert!(len + LANES <= CAPACITY);
        let middle = len + (lanes & 0xff).count_ones() as usize;
        let packet = 0x8888_8888;
        // SAFETY: by the caller's word.
        unsafe {
            let low = _mm512_mask_blend_epi16(packet, self.0[0], tables.0[0]);
            let low = _mm512_maskz_compress_epi64(lanes as __mmask8, low);
            _mm512_storeu_epi64(list.as_mut_ptr().add(len).cast(), low);
            let high = _mm512_mask_blend_epi16(packet, self.0[1], tables.0[1]);
            let high = _mm512_maskz_compress_epi64((lanes >> 8) as __mmask8, high);
            _mm512_storeu_epi64(list.as_mut_ptr().add(middle).cast(), high);
        }
        len + lanes.count_ones() as usize
    }
}

/// A walk from one root.
struct Walk {
    tables: *const i64,
    scale: __m128i,
    /// What is found so far.
    ranks: [__m512i; 2],
    next_len: usize,
    leaves_len: usize,
}

/// # Safety
/// Of all its functions: the processor has the instructions, and `lanes` have entries of the tree.
impl Walk {
    /// From tables to the entries that the packets come to. `upper` is that of the tables.
    #[inline(always)]
    unsafe fn enter(
        &mut self,
        tables: Entries,
        upper: __m512i,
        keys: __m512i,
        lanes: __mmask16,
        next: &mut List,
        leaves: &mut List,
    ) {
        // SAFETY: entries refer to slots of the arena, the rest of a table lies before its slots.
        unsafe {
            let base = tables.base();
            let shift = _mm512_and_si512(upper, _mm512_set1_epi32(31));
            let bits = _mm512_and_si512(_mm512_srli_epi32::<UPPER_BITS>(upper), _mm512_set1_epi32(15));
            let outside = _mm512_sllv_epi32(_mm512_set1_epi32(-1), bits);
            let slots = _mm512_add_epi32(base, _mm512_andnot_si512(outside, _mm512_srlv_epi32(keys, shift)));
            self.keep(Entries::at(self.tables, slots, lanes), tables, upper, lanes, next, leaves);
            let sort = _mm512_set1_epi32(UPPER_SORT);
            let rests = _mm512_mask_cmpeq_epi32_mask(lanes, _mm512_and_si512(upper, sort), sort);
            if rests != 0 {
                let slots = _mm512_sub_epi32(base, _mm512_set1_epi32(1));
                self.keep(Entries::at(self.tables, slots, rests), tables, upper, rests, next, leaves);
            }
        }
    }

    /// Puts entries on the lists, but those whose rows all rank behind what their packet has found.
    #[inline(always)]
    unsafe fn keep(
        &mut self,
        entries: Entries,
        tables: Entries,
        tables_upper: __m512i,
        lanes: __mmask16,
        next: &mut List,
        leaves: &mut List,
    ) {
        // SAFETY: lists have room for WIDTH_LIMIT places for each packet, which no plan exceeds, and a vector.
        unsafe {
            let upper = entries.upper();
            let least = _mm512_sll_epi32(_mm512_srli_epi32::<UPPER_LEAST>(upper), self.scale);
            let packets = _mm512_srli_epi32::<UPPER_LEAST>(tables_upper);
            let best = _mm512_permutex2var_epi32(self.ranks[0], packets, self.ranks[1]);
            let wanted = _mm512_mask_cmple_epu32_mask(lanes, least, best);
            let inner = _mm512_mask_test_epi32_mask(wanted, upper, _mm512_set1_epi32(UPPER_INNER));
            let sort = _mm512_and_si512(upper, _mm512_set1_epi32(UPPER_SORT));
            let leaf = _mm512_mask_cmpeq_epi32_mask(wanted, sort, _mm512_set1_epi32(UPPER_LEAF));
            self.next_len = entries.append(tables, inner, next, self.next_len);
            self.leaves_len = entries.append(tables, leaf, leaves, self.leaves_len);
        }
    }
}

/// The packets' keys that the windows of tables look at.
///
/// # Safety
/// The processor has AVX-512 F; `lanes` have tables of the tree with packets that were prepared.
#[inline(always)]
unsafe fn keys_of(prepared: &Prepared, upper: __m512i, lanes: __mmask16) -> __m512i {
    const { assert!(UPPER_FIELD >= KEY_FIELD && WINDOW_LIMIT <= 15) };
    // SAFETY: a gather reads only the lanes of its mask, and there is a key for each field and packet.
    unsafe {
        let field = _mm512_srli_epi32::<{ UPPER_FIELD - KEY_FIELD }>(upper);
        let field = _mm512_and_si512(field, _mm512_set1_epi32(31 << KEY_FIELD));
        let number = _mm512_or_si512(field, _mm512_srli_epi32::<UPPER_LEAST>(upper));
        _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), lanes, number, prepared.keys.as_ptr().cast())
    }
}

/// Lanes whose service is in the packet's set: each looks up its word of the set's sixteen, then its bit.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn served(block: &Block, point: Point<'_>) -> __mmask16 {
    // SAFETY: as the caller says; the set is aligned to its vector.
    unsafe {
        let byte = _mm512_cvtepu8_epi32(_mm_load_si128(block.service_byte.as_ptr().cast()));
        let bit = _mm512_cvtepu8_epi32(_mm_load_si128(block.service_bit.as_ptr().cast()));
        let set = _mm512_load_si512(point.services.0.as_ptr().cast());
        let word = _mm512_permutexvar_epi32(_mm512_srli_epi32::<2>(byte), set);
        let at = _mm512_and_si512(_mm512_slli_epi32::<3>(byte), _mm512_set1_epi32(24));
        _mm512_test_epi32_mask(word, _mm512_sllv_epi32(bit, at))
    }
}

/// As in `avx2`.
///
/// # Safety
/// The processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn shift_right(lanes: __m512i, counts: __m512i) -> __m512i {
    let shifted;
    // SAFETY: touches registers only.
    unsafe {
        asm!("vpsrlvd {}, {}, {}", lateout(zmm_reg) shifted, in(zmm_reg) lanes, in(zmm_reg) counts,
            options(pure, nomem, nostack, preserves_flags));
    }
    shifted
}

/// # Safety
/// The processor has AVX-512 F, BW, VL, DQ and AVX2, BMI2.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn lookup(tree: &Tree, batch: &Batch) -> Found {
    // SAFETY: the instructions are there; services are numbered below 512 unless wide.
    unsafe {
        match (tree.kinded, tree.services.wide) {
            (false, false) => search::<Avx512, false, SETS>(tree, batch),
            (false, true) => search::<Avx512, false, WIDE>(tree, batch),
            (true, false) => search::<Avx512, true, SETS>(tree, batch),
            (true, true) => search::<Avx512, true, WIDE>(tree, batch),
        }
    }
}
