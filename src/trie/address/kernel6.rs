//! Bursts through a [`Table6`]: portable, and with AVX2.
//!
//! All addresses take a step before any takes the next, so that their loads overlap, and those that have arrived drop
//! out of the list of walkers without a branch.

use super::arena::UNIT;
use super::v6::{CHILD, HEAD, OUTSIDE_AT, Table6};
use crate::trie::BATCH;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    Portable,
    /// The processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Kernel {
    /// The fastest that this processor runs.
    pub(super) fn best() -> Self {
        Self::possible().pop().unwrap_or(Self::Portable)
    }

    /// Slowest first.
    pub(super) fn possible() -> Vec<Self> {
        let mut kernels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        kernels.extend(is_x86_feature_detected!("avx2").then_some(Self::Avx2));
        kernels
    }

    pub(super) fn get(self, table: &Table6, addresses: &[u128; BATCH], len: usize, values: &mut [u32; BATCH]) {
        let mut burst = Burst { base: table.base(), addresses, values, left: 0, walking: LANES };
        burst.values.fill(table.root());
        let mut count = if table.root() & CHILD == 0 { 0 } else { len.min(BATCH) };
        while count > 0 {
            match self {
                Self::Portable => burst.round(0, count),
                // SAFETY: this kernel is chosen only where the processor has AVX2.
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => unsafe { burst.round_avx2(count) },
            }
            count = std::mem::take(&mut burst.left);
        }
    }
}

const LANES: [u8; BATCH] = {
    let mut lanes = [0; BATCH];
    let mut at = 0;
    while at < BATCH {
        lanes[at] = at as u8;
        at += 1;
    }
    lanes
};

struct Burst<'a> {
    /// Nodes of the table; nobody writes to them.
    base: *const u32,
    addresses: &'a [u128; BATCH],
    /// Entries: of walking addresses the node they have come to, of others the value.
    values: &'a mut [u32; BATCH],
    /// Lanes that walk on after this round are collected at the front of `walking`, behind those being read.
    left: usize,
    walking: [u8; BATCH],
}

impl Burst<'_> {
    /// One step for the walkers `from..to`.
    #[inline(always)]
    fn round(&mut self, from: usize, to: usize) {
        for at in from..to {
            let lane = self.lane(at);
            let node = self.node(lane);
            // SAFETY: a node begins with its head, which its entries follow; slot is that of one.
            let entry = unsafe {
                let (prefix, shape) = (node.cast::<u128>().read_unaligned().to_le(), node.add(4).read());
                let (slot, outside) = ((self.addresses[lane] ^ prefix) >> (shape & 0x7f), shape >> OUTSIDE_AT);
                node.add(HEAD + slot.min(u128::from(outside)) as usize).read()
            };
            self.arrive(lane, entry);
        }
    }

    #[inline(always)]
    fn lane(&self, at: usize) -> usize {
        usize::from(self.walking[at % BATCH]) % BATCH
    }

    #[inline(always)]
    fn node(&self, lane: usize) -> *const u32 {
        self.base.wrapping_add((self.values[lane] & !CHILD) as usize * UNIT)
    }

    #[inline(always)]
    fn arrive(&mut self, lane: usize, entry: u32) {
        self.values[lane] = entry;
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch never faults, even when the entry is a value and no node.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.node(lane).cast()) }
        }
        self.walking[self.left % BATCH] = lane as u8;
        self.left += (entry >> 31) as usize;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    impl Burst<'_> {
        /// One step for the first `count` walkers, four at a time.
        #[target_feature(enable = "avx2")]
        pub(super) fn round_avx2(&mut self, count: usize) {
            for at in (0..count - count % 4).step_by(4) {
                let lanes = [0, 1, 2, 3].map(|next| self.lane(at + next));
                self.four(lanes);
            }
            self.round(count - count % 4, count);
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn four(&mut self, lanes: [usize; 4]) {
            let nodes = lanes.map(|lane| self.node(lane));
            let address = |of: usize| (&raw const self.addresses[lanes[of]]).cast::<u32>();
            // SAFETY: addresses and the heads of nodes begin with 16 bytes, low half first; the shape follows.
            let (even, odd, shape) = unsafe {
                (
                    _mm256_xor_si256(pair(address(0), address(1)), pair(nodes[0], nodes[1])),
                    _mm256_xor_si256(pair(address(2), address(3)), pair(nodes[2], nodes[3])),
                    [0, 2, 1, 3].map(|of| nodes[of].add(4).read() as i32),
                )
            };
            // In the order of lanes 0, 2, 1, 3.
            let (low, high) = (_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd));
            let shape = _mm256_cvtepu32_epi64(_mm_setr_epi32(shape[0], shape[1], shape[2], shape[3]));
            let shift = _mm256_and_si256(shape, _mm256_set1_epi64x(0x7f));
            let outside = _mm256_srli_epi64::<{ OUTSIDE_AT as i32 }>(shape);
            // Shifts by 64 and more, and by less than 0, give 0.
            let word = _mm256_set1_epi64x(64);
            let slot = _mm256_or_si256(
                _mm256_or_si256(_mm256_srlv_epi64(low, shift), _mm256_sllv_epi64(high, _mm256_sub_epi64(word, shift))),
                _mm256_srlv_epi64(high, _mm256_sub_epi64(shift, word)),
            );
            let beyond = _mm256_or_si256(_mm256_srlv_epi64(high, shift), _mm256_srli_epi64::<32>(slot));
            let inside = _mm256_cmpeq_epi64(beyond, _mm256_setzero_si256());
            let slot = _mm256_min_epu32(_mm256_blendv_epi8(outside, slot, inside), outside);
            let (front, back) = (_mm256_castsi256_si128(slot), _mm256_extracti128_si256::<1>(slot));
            let slots = [
                _mm_cvtsi128_si64(front),
                _mm_cvtsi128_si64(back),
                _mm_extract_epi64::<1>(front),
                _mm_extract_epi64::<1>(back),
            ];
            for of in 0..4 {
                // SAFETY: at most the number of the last entry.
                let entry = unsafe { nodes[of].add(HEAD + slots[of] as usize).read() };
                self.arrive(lanes[of], entry);
            }
        }
    }

    /// # Safety
    /// There are 16 bytes behind both.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn pair(a: *const u32, b: *const u32) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(_mm_loadu_si128(a.cast())), _mm_loadu_si128(b.cast()))
        }
    }
}
