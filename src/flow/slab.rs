//! Fixed room for flow entries, and the annex for keys that are too wide for one: a second array with the same positions,
//! so that both can be asked for as soon as the position is known.
//!
//! Free places are a list threaded through the places themselves. Places are given out in order before one is used again,
//! so a table that is a tenth full has touched a tenth of its memory. The annex is touched where there are wide keys.

use super::entry::FlowEntry;
use super::key::{LIVE, Wide, is_wide};
use super::memory::Reserved;
use super::probe::prefetch;

/// "No place".
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Slab {
    places: Reserved<FlowEntry>,
    annex: Reserved<Wide>,
    /// High-water mark, and that of wide keys.
    used: usize,
    used_wide: usize,
    /// Who is next. A free place keeps the number of the one after it in the first word of its key.
    free: u32,
    live: usize,
}

impl Slab {
    /// The memory is reserved here and first touched when used, or by [`prefault`](Self::prefault).
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, NONE as usize - 1);
        let (places, annex) = (Reserved::zeroed(capacity), Reserved::zeroed(capacity));
        Self { places, annex, used: 0, used_wide: 0, free: NONE, live: 0 }
    }

    /// Touches all entries now. The annex is left: it grows with the share of flows that need it.
    pub(super) fn prefault(&self) {
        self.places.prefault();
    }

    pub(super) fn capacity(&self) -> usize {
        self.places.len()
    }

    /// Entries that were ever used.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn is_full(&self) -> bool {
        self.live == self.capacity()
    }

    /// Memory touched so far, in bytes; of the annex at most that.
    pub(super) fn memory_bytes(&self) -> usize {
        self.used * size_of::<FlowEntry>() + self.used_wide * size_of::<Wide>()
    }

    #[inline]
    pub(super) fn get(&self, position: u32) -> &FlowEntry {
        &self.places[position as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, position: u32) -> &mut FlowEntry {
        &mut self.places[position as usize]
    }

    /// Asks for the cache lines of an entry and, when `wide`, for the rest of its key.
    #[inline]
    pub(super) fn prefetch(&self, position: u32, wide: bool) {
        prefetch(self.get(position));
        if wide {
            prefetch(self.wide(position));
        }
    }

    /// The wide part of the key; means something only where the key is wide.
    #[inline]
    pub(super) fn wide(&self, position: u32) -> &Wide {
        &self.annex[position as usize]
    }

    /// `None` when full. `wide` is kept if the entry's key is.
    pub(super) fn insert(&mut self, entry: FlowEntry, wide: Wide) -> Option<u32> {
        let position = self.take()?;
        if is_wide(entry.words) {
            self.annex[position as usize] = wide;
            self.used_wide = self.used_wide.max(position as usize + 1);
        }
        self.places[position as usize] = entry;
        Some(position)
    }

    pub(super) fn remove(&mut self, position: u32) {
        debug_assert!(self.get(position).words[1] & LIVE != 0, "removed once");
        self.places[position as usize].words = [self.free.into(), 0];
        self.free = position;
        self.live -= 1;
    }

    fn take(&mut self) -> Option<u32> {
        let position = if self.free != NONE {
            let position = self.free;
            self.free = self.get(position).words[0] as u32;
            position
        } else if self.used < self.capacity() {
            self.used += 1;
            self.used as u32 - 1
        } else {
            return None;
        };
        self.live += 1;
        Some(position)
    }
}
