//! Fixed room for flow entries, a free list, and the queue of disposable flows.
//!
//! The queue is threaded through the entries, oldest first, and holds exactly the live flows that are half-open,
//! one-way or closed. A flood of those therefore evicts itself, whatever its size, in constant time.

use super::entry::FlowEntry;

/// "No entry" in a link.
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Slab {
    /// Reserved once; its length is the high-water mark.
    entries: Vec<FlowEntry>,
    capacity: usize,
    free: u32,
    live: usize,
    oldest: u32,
    newest: u32,
}

impl Slab {
    /// The memory is reserved here and first touched when used.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, NONE as usize - 1);
        Self { entries: Vec::with_capacity(capacity), capacity, free: NONE, live: 0, oldest: NONE, newest: NONE }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Entries that were ever used.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn is_full(&self) -> bool {
        self.live == self.capacity
    }

    #[inline]
    pub(super) fn get(&self, position: u32) -> &FlowEntry {
        &self.entries[position as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, position: u32) -> &mut FlowEntry {
        &mut self.entries[position as usize]
    }

    /// The disposable flow that has been so for longest.
    pub(super) fn first_disposable(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// `None` when full. The entry is expected to be disposable, as every new flow is.
    pub(super) fn insert(&mut self, entry: FlowEntry) -> Option<u32> {
        let position = if self.free != NONE {
            let position = self.free;
            self.free = self.get(position).after;
            *self.get_mut(position) = entry;
            position
        } else if self.entries.len() < self.capacity {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            return None;
        };
        self.live += 1;
        self.enqueue(position);
        Some(position)
    }

    pub(super) fn remove(&mut self, position: u32) {
        if self.get(position).is_disposable() {
            self.dequeue(position);
        }
        let free = self.free;
        let entry = self.get_mut(position);
        entry.live = false;
        entry.after = free;
        self.free = position;
        self.live -= 1;
    }

    /// Changes an entry and keeps the queue in step with its state.
    #[inline]
    pub(super) fn update(&mut self, position: u32, change: impl FnOnce(&mut FlowEntry)) {
        let entry = self.get_mut(position);
        let was = entry.is_disposable();
        change(entry);
        match (was, entry.is_disposable()) {
            (true, false) => self.dequeue(position),
            (false, true) => self.enqueue(position),
            _ => {}
        }
    }

    fn enqueue(&mut self, position: u32) {
        let newest = self.newest;
        let entry = self.get_mut(position);
        entry.before = newest;
        entry.after = NONE;
        if newest == NONE {
            self.oldest = position;
        } else {
            self.get_mut(newest).after = position;
        }
        self.newest = position;
    }

    fn dequeue(&mut self, position: u32) {
        let (before, after) = (self.get(position).before, self.get(position).after);
        if before == NONE {
            self.oldest = after;
        } else {
            self.get_mut(before).after = after;
        }
        if after == NONE {
            self.newest = before;
        } else {
            self.get_mut(after).before = before;
        }
    }
}
