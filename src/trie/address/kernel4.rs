//! Bursts through a [`Table4`]: portable, and with gather instructions of AVX2 and AVX-512.

use super::v4::{CHILD, Table4, UNIT};
use crate::trie::{BATCH, Isa};

/// Looks up the first `len` addresses.
pub(super) fn get(table: &Table4, isa: Isa, addresses: &[u32; BATCH], len: usize, values: &mut [u32; BATCH]) {
    match isa {
        // SAFETY: a table is only given instructions that the processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::get_avx2(table, addresses, len, values) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::get_avx512(table, addresses, len, values) },
        _ => {
            for (value, address) in values.iter_mut().zip(addresses).take(len) {
                *value = table.get(*address);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    const UNIT_SHIFT: i32 = UNIT.trailing_zeros() as i32;

    /// Eight addresses at a time; all four groups take a step before any takes the next.
    #[target_feature(enable = "avx2")]
    pub(super) fn get_avx2(table: &Table4, addresses: &[u32; BATCH], len: usize, values: &mut [u32; BATCH]) {
        let (root, base) = (table.root().as_ptr().cast::<i32>(), table.base().cast::<i32>());
        let groups = len.div_ceil(8).min(BATCH / 8);
        let child = _mm256_set1_epi32(CHILD as i32);
        let low = _mm256_set1_epi32(0xff);
        let (mut address, mut entry) = ([_mm256_setzero_si256(); BATCH / 8], [_mm256_setzero_si256(); BATCH / 8]);
        for at in 0..groups {
            // SAFETY: eight of the BATCH addresses, and an index of 10 bits into the root.
            unsafe {
                address[at] = _mm256_loadu_si256(addresses.as_ptr().add(8 * at).cast());
                entry[at] = _mm256_i32gather_epi32::<4>(root, _mm256_srli_epi32::<22>(address[at]));
            }
        }
        for at in 0..groups {
            let index = _mm256_and_si256(_mm256_srli_epi32::<16>(address[at]), _mm256_set1_epi32(0x3f));
            let block = _mm256_slli_epi32::<UNIT_SHIFT>(_mm256_andnot_si256(child, entry[at]));
            let index = _mm256_add_epi32(block, index);
            // SAFETY: only lanes with a child load, from within its block of 64.
            entry[at] = unsafe { _mm256_mask_i32gather_epi32::<4>(entry[at], base, index, entry[at]) };
        }
        for at in 0..groups {
            let index = _mm256_and_si256(_mm256_srli_epi32::<8>(address[at]), low);
            let block = _mm256_slli_epi32::<UNIT_SHIFT>(_mm256_andnot_si256(child, entry[at]));
            let index = _mm256_add_epi32(block, index);
            // SAFETY: only lanes with a child load, from within its block of 256.
            entry[at] = unsafe { _mm256_mask_i32gather_epi32::<4>(entry[at], base, index, entry[at]) };
        }
        for at in 0..groups {
            let index = _mm256_and_si256(address[at], low);
            let block = _mm256_andnot_si256(child, entry[at]);
            // SAFETY: only lanes with a child load, from within its block; a narrow leaf's load reaches two bytes
            // beyond it, where there is at least one more unit.
            entry[at] = unsafe {
                if table.is_wide() {
                    let index = _mm256_add_epi32(_mm256_slli_epi32::<UNIT_SHIFT>(block), index);
                    _mm256_mask_i32gather_epi32::<4>(entry[at], base, index, entry[at])
                } else {
                    let index = _mm256_add_epi32(_mm256_slli_epi32::<{ UNIT_SHIFT + 1 }>(block), index);
                    let loaded = _mm256_mask_i32gather_epi32::<2>(entry[at], base, index, entry[at]);
                    let narrow = _mm256_and_si256(loaded, _mm256_set1_epi32(0xffff));
                    _mm256_blendv_epi8(entry[at], narrow, _mm256_srai_epi32::<31>(entry[at]))
                }
            };
            // SAFETY: eight of the BATCH values.
            unsafe { _mm256_storeu_si256(values.as_mut_ptr().add(8 * at).cast(), entry[at]) };
        }
    }

    /// As with AVX2, sixteen at a time.
    #[target_feature(enable = "avx512f")]
    pub(super) fn get_avx512(table: &Table4, addresses: &[u32; BATCH], len: usize, values: &mut [u32; BATCH]) {
        let (root, base) = (table.root().as_ptr().cast::<i32>(), table.base().cast::<i32>());
        let child = _mm512_set1_epi32(CHILD as i32);
        let low = _mm512_set1_epi32(0xff);
        for at in (0..len.min(BATCH)).step_by(16) {
            // SAFETY: sixteen of the BATCH addresses, and an index of 10 bits into the root.
            let (address, mut entry) = unsafe {
                let address = _mm512_loadu_si512(addresses.as_ptr().add(at).cast());
                (address, _mm512_i32gather_epi32::<4>(_mm512_srli_epi32::<22>(address), root))
            };
            let index = _mm512_and_si512(_mm512_srli_epi32::<16>(address), _mm512_set1_epi32(0x3f));
            let block = _mm512_slli_epi32::<{ UNIT_SHIFT as u32 }>(_mm512_andnot_si512(child, entry));
            let children = _mm512_test_epi32_mask(entry, child);
            // SAFETY: only lanes with a child load, from within its block of 64.
            entry = unsafe { _mm512_mask_i32gather_epi32::<4>(entry, children, _mm512_add_epi32(block, index), base) };
            let index = _mm512_and_si512(_mm512_srli_epi32::<8>(address), low);
            let block = _mm512_slli_epi32::<{ UNIT_SHIFT as u32 }>(_mm512_andnot_si512(child, entry));
            let children = _mm512_test_epi32_mask(entry, child);
            // SAFETY: only lanes with a child load, from within its block of 256.
            entry = unsafe { _mm512_mask_i32gather_epi32::<4>(entry, children, _mm512_add_epi32(block, index), base) };
            let index = _mm512_and_si512(address, low);
            let block = _mm512_andnot_si512(child, entry);
            let children = _mm512_test_epi32_mask(entry, child);
            // SAFETY: only lanes with a child load, from within its block; a narrow leaf's load reaches two bytes
            // beyond it, where there is at least one more unit.
            entry = unsafe {
                if table.is_wide() {
                    let index = _mm512_add_epi32(_mm512_slli_epi32::<{ UNIT_SHIFT as u32 }>(block), index);
                    _mm512_mask_i32gather_epi32::<4>(entry, children, index, base)
                } else {
                    let index = _mm512_add_epi32(_mm512_slli_epi32::<{ UNIT_SHIFT as u32 + 1 }>(block), index);
                    let loaded = _mm512_mask_i32gather_epi32::<2>(entry, children, index, base);
                    _mm512_mask_and_epi32(loaded, children, loaded, _mm512_set1_epi32(0xffff))
                }
            };
            // SAFETY: sixteen of the BATCH values.
            unsafe { _mm512_storeu_si512(values.as_mut_ptr().add(at).cast(), entry) };
        }
    }
}
