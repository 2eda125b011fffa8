//! Sixteen lanes at a time.
#![cfg(target_arch = "x86_64")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::block::{Block, PortBlock};
use super::super::row::Batch;
use super::super::tree::Tree;
use super::{Compare, Found, Point, avx2, search};

pub(super) struct Avx512;

impl Compare for Avx512 {
    #[inline(always)]
    unsafe fn lanes<const KINDED: bool, const WIDE: bool>(block: &Block, point: Point<'_>) -> u32 {
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
            let lanes = u32::from(_mm512_testn_epi32_mask(differing, differing));
            if WIDE { lanes } else { lanes & avx2::served(block, point) }
        }
    }

    #[inline(always)]
    unsafe fn ports(ports: &PortBlock, packed: u64) -> u32 {
        // SAFETY: the processor has AVX2 and BMI2 too.
        unsafe { avx2::in_ports(ports, packed) }
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
            (false, false) => search::<Avx512, false, false>(tree, batch),
            (false, true) => search::<Avx512, false, true>(tree, batch),
            (true, false) => search::<Avx512, true, false>(tree, batch),
            (true, true) => search::<Avx512, true, true>(tree, batch),
        }
    }
}
