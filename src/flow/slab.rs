//! Fixed room for flow entries, and the annex for keys that are too wide for one.
//!
//! Free places are a list threaded through the places themselves. Places are given out in order before one is used again,
//! so a table that is a tenth full has touched a tenth of its memory.

use super::entry::FlowEntry;
use super::key::{LIVE, Wide, annex_of};
use super::memory::{Plain, Reserved};

/// "No place".
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Slab {
    entries: Pool<FlowEntry>,
    annex: Pool<Wide>,
}

/// Places of one kind, and who is next.
struct Pool<T: Plain> {
    places: Reserved<T>,
    /// High-water mark.
    used: usize,
    free: u32,
    live: usize,
}

/// A place that keeps the number of the next free one while it is free.
trait Link: Plain {
    fn next(&self) -> u32;
    fn set_next(&mut self, next: u32);
}

impl Link for FlowEntry {
    fn next(&self) -> u32 {
        self.words[0] as u32
    }

    fn set_next(&mut self, next: u32) {
        self.words = [next.into(), 0];
    }
}

impl Link for Wide {
    fn next(&self) -> u32 {
        self.vni as u32
    }

    fn set_next(&mut self, next: u32) {
        self.vni = next.into();
    }
}

impl<T: Link> Pool<T> {
    fn new(capacity: usize) -> Self {
        Self { places: Reserved::zeroed(capacity), used: 0, free: NONE, live: 0 }
    }

    fn take(&mut self) -> Option<u32> {
        let place = if self.free != NONE {
            let place = self.free;
            self.free = self.places[place as usize].next();
            place
        } else if self.used < self.places.len() {
            self.used += 1;
            self.used as u32 - 1
        } else {
            return None;
        };
        self.live += 1;
        Some(place)
    }

    fn give_back(&mut self, place: u32) {
        self.places[place as usize].set_next(self.free);
        self.free = place;
        self.live -= 1;
    }
}

impl Slab {
    /// The memory is reserved here and first touched when used, or by [`prefault`](Self::prefault).
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, NONE as usize - 1);
        Self { entries: Pool::new(capacity), annex: Pool::new(capacity) }
    }

    /// Touches all entries now. The annex is left: it grows with the share of flows that need it.
    pub(super) fn prefault(&self) {
        self.entries.places.prefault();
    }

    pub(super) fn capacity(&self) -> usize {
        self.entries.places.len()
    }

    /// Entries that were ever used.
    pub(super) fn len(&self) -> usize {
        self.entries.used
    }

    pub(super) fn live(&self) -> usize {
        self.entries.live
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.live == self.capacity()
    }

    /// Memory touched so far, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.used * size_of::<FlowEntry>() + self.annex.used * size_of::<Wide>()
    }

    #[inline]
    pub(super) fn get(&self, position: u32) -> &FlowEntry {
        &self.entries.places[position as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, position: u32) -> &mut FlowEntry {
        &mut self.entries.places[position as usize]
    }

    /// The wide part of a key; all zero for a narrow one.
    #[inline]
    pub(super) fn wide(&self, words: [u64; 2]) -> Wide {
        annex_of(words).map_or(Wide::default(), |place| self.annex.places[place as usize])
    }

    /// `None` when full. The entry is made from the words of its key.
    pub(super) fn insert(
        &mut self,
        words: [u64; 2],
        wide: impl FnOnce() -> Wide,
        make: impl FnOnce([u64; 2]) -> FlowEntry,
    ) -> Option<u32> {
        let position = self.entries.take()?;
        let mut words = words;
        if annex_of(words).is_some() {
            // There are as many places as entries.
            let Some(place) = self.annex.take() else {
                self.entries.give_back(position);
                return None;
            };
            self.annex.places[place as usize] = wide();
            words[0] |= u64::from(place);
        }
        self.entries.places[position as usize] = make(words);
        Some(position)
    }

    pub(super) fn remove(&mut self, position: u32) {
        let words = self.get(position).words;
        debug_assert!(words[1] & LIVE != 0, "removed once");
        if let Some(place) = annex_of(words) {
            self.annex.give_back(place);
        }
        self.entries.give_back(position);
    }
}
