//! The two machine-dependent steps of a lookup: comparing all tags of a bucket at once, and prefetching.

/// Slots of a bucket.
pub(super) const SLOTS: usize = 10;

/// First 24 bytes of a bucket: a tag a slot, then two numbers that are none.
pub(super) type Head = [u16; SLOTS + 2];

/// Bit n: slot n has this tag.
#[inline]
pub(super) fn matches(head: &Head, tag: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return sse2(head, tag);
    #[cfg(not(target_arch = "x86_64"))]
    return portable(head, tag);
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable(head: &Head, tag: u16) -> u32 {
    (0..SLOTS).fold(0, |mask, slot| mask | u32::from(head[slot] == tag) << slot)
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn sse2(head: &Head, tag: u16) -> u32 {
    use std::arch::x86_64::*;
    // SAFETY: every x86-64 has SSE2. The loads read bytes 0..16 and 16..24 of the 24 of `head`, at any alignment.
    let mask = unsafe {
        let wanted = _mm_set1_epi16(tag as i16);
        let first = _mm_cmpeq_epi16(_mm_loadu_si128(head.as_ptr().cast()), wanted);
        let second = _mm_cmpeq_epi16(_mm_loadl_epi64(head.as_ptr().add(8).cast()), wanted);
        _mm_movemask_epi8(_mm_packs_epi16(first, second))
    };
    mask as u32 & ((1 << SLOTS) - 1)
}

/// Asks for the cache line of a value, and the next one when it is longer than one, to come as far as the second cache.
///
/// PERF: with two lines for each packet of a burst the requests for the first cache wait for one another; at 100,000 flows
/// and more a packet then takes 1.7 times as long (`bench/flows`).
#[inline]
pub(super) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let start = std::ptr::from_ref(value).cast::<i8>();
        // SAFETY: every x86-64 has SSE; prefetching is a hint and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(start) };
        if size_of::<T>() > 64 {
            // SAFETY: as above; the second line lies within the value.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.add(64)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_and_plain_comparison_agree() {
        let mut dice = 1u32;
        for _ in 0..10_000 {
            let head: Head = std::array::from_fn(|_| {
                dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // All sixteen bits, in few values.
                [0, 1, 0x7fff, 0x8000, 0xffff][(dice >> 16) as usize % 5]
            });
            for tag in [0, 1, 0x7fff, 0x8000, 0xffff, 0x0100] {
                assert_eq!(matches(&head, tag), portable(&head, tag), "{head:?} {tag}");
            }
        }
    }
}
