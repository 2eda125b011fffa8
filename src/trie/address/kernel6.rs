//! Bursts through a [`Table6`]: portable, and with AVX2.

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
        if table.root() & CHILD == 0 {
            values.fill(table.root());
            return;
        }
        match self {
            Self::Portable => {
                for (value, address) in values.iter_mut().zip(addresses).take(len) {
                    *value = table.get(*address);
                }
            }
            // SAFETY: this kernel is chosen only where the processor has AVX2.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::get_avx2(table, addresses, len.min(BATCH), values) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    /// Bytes of a unit, as a shift: of an entry it makes the offset of the node, which is less than 4 GB.
    const OFFSET: i32 = (UNIT * size_of::<u32>()).trailing_zeros() as i32;

    /// All addresses take a step before any takes the next, so that their loads overlap. For the table's usual number
    /// of steps, those that have arrived are taken along; after that they drop out of the list of walkers.
    #[target_feature(enable = "avx2")]
    pub(super) fn get_avx2(table: &Table6, addresses: &[u128; BATCH], len: usize, values: &mut [u32; BATCH]) {
        let base = table.base().cast::<u8>();
        values.fill(table.root());
        let root = _mm_set1_epi32(table.root() as i32);
        for _ in 0..table.steps() {
            for at in (0..len).step_by(4) {
                // SAFETY: four lanes of BATCH, a multiple of four; those not walking look at the root.
                unsafe {
                    let place = values.as_mut_ptr().add(at).cast();
                    let before = _mm_loadu_si128(place);
                    let nodes = choose(root, before, before);
                    let after = step(base, addresses, [at, at + 1, at + 2, at + 3], halves(nodes));
                    _mm_storeu_si128(place, choose(before, after, before));
                }
            }
        }
        // A branch that is not foreseen costs more than a step, hence none is made on single lanes.
        let (mut walking, mut count) = ([0; BATCH + 4], 0);
        for (lane, value) in values.iter().enumerate().take(len) {
            walking[count] = lane;
            count += (value >> 31) as usize;
        }
        while count > 0 {
            // The last is repeated to make up four.
            let last = walking[count - 1];
            walking[count..count + 3].fill(last);
            let mut left = 0;
            for at in (0..count).step_by(4) {
                let lanes = [0, 1, 2, 3].map(|of| walking[at + of]);
                // SAFETY: walking lanes are below BATCH and have come to nodes of the table.
                let entries = halves(unsafe { step(base, addresses, lanes, lanes.map(|lane| values[lane % BATCH])) });
                for (of, (lane, entry)) in lanes.into_iter().zip(entries).enumerate() {
                    values[lane % BATCH] = entry;
                    walking[left % BATCH] = lane;
                    left += usize::from(entry & CHILD != 0 && at + of < count);
                }
            }
            count = left;
        }
    }

    /// The entries that addresses in these lanes find in these nodes.
    ///
    /// # Safety
    /// Lanes are below BATCH; nodes are entries for nodes of the table behind `base`.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn step(base: *const u8, addresses: &[u128; BATCH], lanes: [usize; 4], nodes: [u32; 4]) -> __m128i {
        // SAFETY: the caller's promise. A node begins with its prefix, low half first, and its shape, which its entries
        // follow; an address is 16 bytes, low half first.
        unsafe {
            let nodes = nodes.map(|node| base.add((node << OFFSET) as usize).cast::<u32>());
            let differences = [0, 1, 2, 3].map(|of| {
                let address = _mm_loadu_si128(addresses.as_ptr().add(lanes[of]).cast());
                _mm_xor_si128(address, _mm_loadu_si128(nodes[of].cast()))
            });
            let shapes = [0, 2, 1, 3].map(|of: usize| nodes[of].add(4).read() as i32);
            let slots = slots(differences, _mm_setr_epi32(shapes[0], shapes[1], shapes[2], shapes[3]));
            let [a, b, c, d] = [0, 1, 2, 3].map(|of| {
                let entry = nodes[of].add(HEAD + slots[of] as usize).read();
                // What is not a node is not looked at; a prefetch never faults.
                _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add((entry << OFFSET) as usize).cast());
                entry as i32
            });
            _mm_setr_epi32(a, b, c, d)
        }
    }

    /// Of each lane `b` where `by` has CHILD, else `a`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn choose(a: __m128i, b: __m128i, by: __m128i) -> __m128i {
        _mm_castps_si128(_mm_blendv_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b), _mm_castsi128_ps(by)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves(four: __m128i) -> [u32; 4] {
        let (front, back) = (_mm_cvtsi128_si64(four) as u64, _mm_extract_epi64::<1>(four) as u64);
        [front as u32, (front >> 32) as u32, back as u32, (back >> 32) as u32]
    }

    /// Numbers of entries, from addresses' differences to the prefixes, and the shapes of nodes 0, 2, 1 and 3.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn slots(differences: [__m128i; 4], shapes: __m128i) -> [i64; 4] {
        let pair = |a, b| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
        let (front, back) = (pair(differences[0], differences[1]), pair(differences[2], differences[3]));
        let (low, high) = (_mm256_unpacklo_epi64(front, back), _mm256_unpackhi_epi64(front, back));
        let shapes = _mm256_cvtepu32_epi64(shapes);
        let shift = _mm256_and_si256(shapes, _mm256_set1_epi64x(0x7f));
        let outside = _mm256_srli_epi64::<{ OUTSIDE_AT as i32 }>(shapes);
        // Shifts by 64 and more, and by less than 0, give 0.
        let word = _mm256_set1_epi64x(64);
        let carried = _mm256_sllv_epi64(high, _mm256_sub_epi64(word, shift));
        let upper = _mm256_srlv_epi64(high, _mm256_sub_epi64(shift, word));
        let slot = _mm256_or_si256(_mm256_or_si256(_mm256_srlv_epi64(low, shift), carried), upper);
        let beyond = _mm256_or_si256(_mm256_srlv_epi64(high, shift), _mm256_srli_epi64::<32>(slot));
        let inside = _mm256_cmpeq_epi64(beyond, _mm256_setzero_si256());
        let slot = _mm256_min_epu32(_mm256_blendv_epi8(outside, slot, inside), outside);
        let (even, odd) = (_mm256_castsi256_si128(slot), _mm256_extracti128_si256::<1>(slot));
        [_mm_cvtsi128_si64(even), _mm_cvtsi128_si64(odd), _mm_extract_epi64::<1>(even), _mm_extract_epi64::<1>(odd)]
    }
}
