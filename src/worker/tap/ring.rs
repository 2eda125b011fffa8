//! A ring of packet records of any length between one worker and one reader.
//!
//! ```text
//!   tail ──► │ head words │ bytes, padded to 8 │ head words │ bytes … │ ◄── head ◄── next
//!            └───────────── the reader's ──────────────────────────────┘   the worker's until published
//! ```
//! The memory is fixed when the ring is made. The worker copies bytes in and publishes them once a burst; until then
//! it may still change what it wrote, for only then it knows what the device took. When a record does not fit it is
//! not written, and the worker counts it.
//!
//! All words are atomic numbers, read and written without ordering between the two ends' acquire and release of `head`
//! and `tail`: plain moves on every machine, and no `unsafe`. A second writer would spoil records, never memory.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

/// Bytes of a word.
const WORD: usize = 8;

/// The ring. One thread writes, one thread reads.
#[derive(Debug)]
pub struct TapRing {
    words: Box<[AtomicU64]>,
    /// Words published; the worker's.
    head: CachePadded<AtomicU64>,
    /// Words written, published or not; the worker's.
    next: AtomicU64,
    /// Words read; the reader's.
    tail: CachePadded<AtomicU64>,
}

/// Where a record lies, for changing it before it is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(u64);

impl TapRing {
    /// Room for `bytes`, rounded up to a power of two of at least 4 KiB.
    pub fn new(bytes: usize) -> Self {
        let words = (bytes / WORD).next_power_of_two().max(512);
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            head: CachePadded::default(),
            next: AtomicU64::new(0),
            tail: CachePadded::default(),
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.words.len() * WORD
    }

    /// The worker's: writes a record of these words and bytes, not yet published. `None` when it does not fit.
    #[inline]
    pub fn write(&self, head: &[u64], bytes: &[u8]) -> Option<Place> {
        let begin = self.next.load(Ordering::Relaxed);
        let need = (head.len() + bytes.len().div_ceil(WORD)) as u64;
        let used = begin - self.tail.load(Ordering::Acquire);
        if used + need > self.words.len() as u64 {
            return None;
        }
        let mut at = begin;
        for word in head {
            self.put(at, *word);
            at += 1;
        }
        let mut chunks = bytes.chunks_exact(WORD);
        for chunk in &mut chunks {
            let mut word = [0; WORD];
            word.copy_from_slice(chunk);
            self.put(at, u64::from_le_bytes(word));
            at += 1;
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; WORD];
            word[..rest.len()].copy_from_slice(rest);
            self.put(at, u64::from_le_bytes(word));
        }
        self.next.store(begin + need, Ordering::Relaxed);
        Some(Place(begin))
    }

    /// The worker's: replaces word `n` of a record that is not published.
    #[inline]
    pub fn change(&self, place: Place, n: usize, word: u64) {
        self.put(place.0 + n as u64, word);
    }

    /// The worker's: lets the reader see what was written.
    #[inline]
    pub fn publish(&self) {
        self.head.store(self.next.load(Ordering::Relaxed), Ordering::Release);
    }

    /// The reader's: takes the next record of `HEAD` words, whose number of bytes `len` tells from them. Its bytes
    /// replace those in `bytes`. `None` when there is none.
    pub fn read<const HEAD: usize>(
        &self,
        bytes: &mut Vec<u8>,
        len: impl FnOnce(&[u64; HEAD]) -> usize,
    ) -> Option<[u64; HEAD]> {
        let (begin, end) = (self.tail.load(Ordering::Relaxed), self.head.load(Ordering::Acquire));
        if begin + HEAD as u64 > end {
            return None;
        }
        let head: [u64; HEAD] = std::array::from_fn(|n| self.get(begin + n as u64));
        let len = len(&head);
        let first = begin + HEAD as u64;
        let after = first + len.div_ceil(WORD) as u64;
        if after > end {
            // Only a second writer could have done this; what is left means nothing.
            self.tail.store(end, Ordering::Release);
            return None;
        }
        bytes.clear();
        (first..after).for_each(|at| bytes.extend_from_slice(&self.get(at).to_le_bytes()));
        bytes.truncate(len);
        self.tail.store(after, Ordering::Release);
        Some(head)
    }

    #[inline]
    fn put(&self, at: u64, word: u64) {
        self.words[at as usize & (self.words.len() - 1)].store(word, Ordering::Relaxed);
    }

    fn get(&self, at: u64) -> u64 {
        self.words[at as usize & (self.words.len() - 1)].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn read(ring: &TapRing) -> Option<(u64, Vec<u8>)> {
        let mut bytes = Vec::new();
        ring.read::<2>(&mut bytes, |head| head[1] as usize).map(|head| (head[0], bytes))
    }

    #[test]
    fn nothing_is_seen_before_it_is_published_and_it_can_be_changed_until_then() {
        let ring = TapRing::new(0);
        assert_eq!(ring.bytes(), 4096);
        let place = ring.write(&[7, 3], b"abc").expect("room");
        assert_eq!(read(&ring), None);
        ring.change(place, 0, 8);
        ring.publish();
        assert_eq!(read(&ring), Some((8, b"abc".to_vec())));
        assert_eq!(read(&ring), None);
    }

    #[test]
    fn two_threads_lose_and_spoil_nothing() {
        let ring = TapRing::new(4096);
        let mut refused = 0u64;
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut expected = 0;
                while expected < 50_000 {
                    let Some((number, bytes)) = read(&ring) else {
                        std::thread::yield_now();
                        continue;
                    };
                    assert_eq!(number, expected);
                    assert_eq!(bytes, vec![number as u8; number as usize % 300]);
                    expected += 1;
                }
            });
            for number in 0..50_000u64 {
                let bytes = vec![number as u8; number as usize % 300];
                while ring.write(&[number, bytes.len() as u64], &bytes).is_none() {
                    refused += 1;
                    std::thread::yield_now();
                }
                ring.publish();
            }
            reader.join().expect("all came in order");
        });
        println!("refused {refused} times");
    }

    proptest! {
        #[test]
        fn it_is_a_bounded_queue(steps in prop::collection::vec((0u8..4, 0usize..900), 1..400)) {
            let ring = TapRing::new(4096);
            let (mut published, mut written) = (VecDeque::new(), VecDeque::new());
            for (number, (step, len)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..len).map(|n| (n + number) as u8).collect();
                        let words = |queue: &VecDeque<(u64, Vec<u8>)>| -> usize {
                            queue.iter().map(|(_, bytes)| 2 + bytes.len().div_ceil(8)).sum()
                        };
                        let fits = words(&published) + words(&written) + 2 + len.div_ceil(8) <= 512;
                        let put = ring.write(&[number as u64, len as u64], &bytes);
                        prop_assert_eq!(put.is_some(), fits);
                        if fits {
                            written.push_back((number as u64, bytes));
                        }
                    }
                    2 => {
                        ring.publish();
                        published.append(&mut written);
                    }
                    _ => prop_assert_eq!(read(&ring), published.pop_front()),
                }
            }
        }
    }
}
