//! Eight lanes at a time.
#![cfg(target_arch = "x86_64")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::block::{Block, PortBlock};
use super::super::row::Batch;
use super::super::tree::Tree;
use super::{FEW, FEW_LIMIT, Found, Point, SETS, Vectors, WIDE, search, unpack};

pub(super) struct Avx2;

impl Vectors for Avx2 {
    #[inline(always)]
    unsafe fn lanes<const KINDED: bool, const SERVICES: u8>(block: &Block, point: Point<'_>) -> u32 {
        // SAFETY: the processor has AVX2 by the caller's word; loads stay inside block and point, whose arrays are
        // aligned to their vectors.
        unsafe {
            let (low, high) = (differing::<KINDED>(block, point, 0), differing::<KINDED>(block, point, 8));
            let zero = _mm256_setzero_si256();
            // 32-bit lanes of all ones where nothing differs, narrowed to bytes in order.
            let words = _mm256_packs_epi32(_mm256_cmpeq_epi32(low, zero), _mm256_cmpeq_epi32(high, zero));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let lanes = _mm_movemask_epi8(bytes) as u32;
            match SERVICES {
                WIDE => lanes,
                FEW => lanes & served_few(block, point),
                _ => lanes & served(block, point),
            }
        }
    }

    #[inline(always)]
    unsafe fn ports(ports: &PortBlock, packed: u64) -> u32 {
        // SAFETY: by the caller's word.
        unsafe { in_ports(ports, packed) }
    }
}

/// Bits of source and destination in which eight rows differ from the packet.
///
/// # Safety
/// The processor has AVX2; `from` is 0 or 8.
#[inline(always)]
unsafe fn differing<const KINDED: bool>(block: &Block, point: Point<'_>, from: usize) -> __m256i {
    // SAFETY: as the caller says.
    unsafe {
        let side = |rows: &[u32; 16], codes: &[u8; 16], keys: &[u32]| {
            let rows = _mm256_load_si256(rows.as_ptr().add(from).cast());
            let codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.as_ptr().add(from).cast()));
            if KINDED {
                let keys = _mm256_load_si256(keys.as_ptr().cast());
                let keys = _mm256_permutevar8x32_epi32(keys, _mm256_srli_epi32::<5>(codes));
                shift_right(_mm256_xor_si256(rows, keys), _mm256_and_si256(codes, _mm256_set1_epi32(31)))
            } else {
                shift_right(_mm256_xor_si256(rows, _mm256_set1_epi32(*keys.get_unchecked(0) as i32)), codes)
            }
        };
        let src = side(&block.src, &block.src_code, point.src);
        _mm256_or_si256(src, side(&block.dst, &block.dst_code, point.dst))
    }
}

/// Each lane by its own count; by 32, to zero. The intrinsic for this instruction is compiled to five, for counts that
/// do not occur.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn shift_right(lanes: __m256i, counts: __m256i) -> __m256i {
    let shifted;
    // SAFETY: touches registers only.
    unsafe {
        asm!("vpsrlvd {}, {}, {}", lateout(ymm_reg) shifted, in(ymm_reg) lanes, in(ymm_reg) counts,
            options(pure, nomem, nostack, preserves_flags));
    }
    shifted
}

/// Lanes whose service is in the packet's set: each looks up its byte of the set's 64, then its bit.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn served(block: &Block, point: Point<'_>) -> u32 {
    // SAFETY: as the caller says.
    unsafe {
        let set: *const __m256i = point.services.0.as_ptr().cast();
        let byte = _mm256_broadcastsi128_si256(_mm_load_si128(block.service_byte.as_ptr().cast()));
        // A shuffle gives zero for an index with its top bit set: so for bytes outside the 16 that it looks at.
        let part = |set: __m256i, first: __m256i| {
            let index = _mm256_adds_epu8(_mm256_xor_si256(byte, first), _mm256_set1_epi8(0x70));
            _mm256_shuffle_epi8(set, index)
        };
        let low = part(_mm256_load_si256(set), _mm256_set_m128i(_mm_set1_epi8(0x10), _mm_setzero_si128()));
        let high = part(_mm256_load_si256(set.add(1)), _mm256_set_m128i(_mm_set1_epi8(0x30), _mm_set1_epi8(0x20)));
        let both = _mm256_or_si256(low, high);
        let bytes = _mm_or_si128(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
        let bits = _mm_and_si128(bytes, _mm_load_si128(block.service_bit.as_ptr().cast()));
        !_mm_movemask_epi8(_mm_cmpeq_epi8(bits, _mm_setzero_si128())) as u32 & 0xffff
    }
}

/// As [`served`], with a byte of the set's first 32.
///
/// # Safety
/// The processor has AVX2; every `service_byte` is below 32.
#[inline(always)]
unsafe fn served_few(block: &Block, point: Point<'_>) -> u32 {
    // SAFETY: as the caller says.
    unsafe {
        let set: *const __m128i = point.services.0.as_ptr().cast();
        let byte = _mm_load_si128(block.service_byte.as_ptr().cast());
        let low = _mm_shuffle_epi8(_mm_load_si128(set), _mm_adds_epu8(byte, _mm_set1_epi8(0x70)));
        // Below zero, and so without a byte, for those of the first half.
        let high = _mm_shuffle_epi8(_mm_load_si128(set.add(1)), _mm_sub_epi8(byte, _mm_set1_epi8(0x10)));
        let bits = _mm_and_si128(_mm_or_si128(low, high), _mm_load_si128(block.service_bit.as_ptr().cast()));
        !_mm_movemask_epi8(_mm_cmpeq_epi8(bits, _mm_setzero_si128())) as u32 & 0xffff
    }
}

/// Lanes whose ports and protocol agree: what is left of a difference that must not be below zero is zero.
///
/// # Safety
/// The processor has AVX2 and BMI2.
#[inline(always)]
pub(super) unsafe fn in_ports(ports: &PortBlock, packed: u64) -> u32 {
    let packet = unpack(packed).map(|value| value as i16);
    // SAFETY: by the caller's word; arrays are aligned to their vectors.
    unsafe {
        let [src, dst, protocol] = packet.map(|value| _mm256_set1_epi16(value));
        let load = |values: &[u16; 16]| _mm256_load_si256(values.as_ptr().cast());
        let outside = |first: &[u16; 16], last: &[u16; 16], port| {
            _mm256_or_si256(_mm256_subs_epu16(load(first), port), _mm256_subs_epu16(port, load(last)))
        };
        let ports_differ = _mm256_or_si256(
            outside(&ports.src_first, &ports.src_last, src),
            outside(&ports.dst_first, &ports.dst_last, dst),
        );
        let protocol = _mm256_and_si256(_mm256_xor_si256(protocol, load(&ports.protocol)), load(&ports.protocol_mask));
        let agree = _mm256_cmpeq_epi16(_mm256_or_si256(ports_differ, protocol), _mm256_setzero_si256());
        _pext_u32(_mm256_movemask_epi8(agree) as u32, 0x5555_5555)
    }
}

/// # Safety
/// The processor has AVX2 and BMI2.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn lookup(tree: &Tree, batch: &Batch) -> Found {
    // SAFETY: the instructions are there; services are numbered below 512 unless wide.
    unsafe {
        let few = tree.services.list.len() <= FEW_LIMIT;
        match (tree.kinded, tree.services.wide) {
            (false, false) if few => search::<Avx2, false, FEW>(tree, batch),
            (false, false) => search::<Avx2, false, SETS>(tree, batch),
            (false, true) => search::<Avx2, false, WIDE>(tree, batch),
            (true, false) if few => search::<Avx2, true, FEW>(tree, batch),
            (true, false) => search::<Avx2, true, SETS>(tree, batch),
            (true, true) => search::<Avx2, true, WIDE>(tree, batch),
        }
    }
}
