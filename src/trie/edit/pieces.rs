//! Tables and leaves as the writer holds them: shared between slots, written only where no living generation looks.

use super::*;

impl TreeEditor {
    /// Moves what was built into the arenas, without sharing.
    pub(super) fn adopt(&mut self, from: &Builder<'_>, entry: Entry) -> Entry {
        if !entry.is_inner() {
            let length = self.length(entry);
            if length == 0 {
                return Entry::EMPTY;
            }
            let first = self.blocks.take(length);
            for at in 0..length {
                self.write_block(first + at, from.blocks[(entry.base() + at) as usize]);
            }
            self.fresh.insert(Piece::Leaf(first), length);
            return entry.with_base(first);
        }
        let length = table_length(entry);
        let start = self.tables.take(length);
        let old = entry.base() as usize - TABLE_FRONT;
        let base = start + TABLE_FRONT as u32;
        self.write(start, from.tables[old]);
        for at in 1..length {
            let child = self.adopt(from, from.tables[old + at as usize]);
            self.write(start + at, child);
        }
        self.fresh.insert(Piece::Table(base), length);
        entry.with_base(base)
    }

    /// The base of a table with the content of `entry`'s that may be written: the table itself if nobody has seen it.
    pub(super) fn writable(&mut self, entry: Entry) -> u32 {
        let (old, id) = (entry.base(), piece(entry));
        let is_shared = self.shared.contains_key(&id);
        if self.fresh.contains_key(&id) && !is_shared {
            return old;
        }
        let length = table_length(entry);
        let start = self.tables.take(length);
        // SAFETY: both are runs of the arena, and the second was just taken.
        unsafe { self.tables.slots.copy(old as usize - TABLE_FRONT, start as usize, length as usize) };
        let base = start + TABLE_FRONT as u32;
        self.fresh.insert(Piece::Table(base), length);
        if is_shared {
            for at in 1..length {
                let child = self.read(start + at);
                self.retain(child);
            }
        }
        self.release(entry);
        base
    }

    /// One slot more refers to it.
    pub(super) fn retain(&mut self, entry: Entry) {
        if entry.is_inner() || entry.is_leaf() {
            let id = piece(entry);
            let more = self.shared.get(&id).copied();
            self.journal.push((id, more));
            self.shared.insert(id, more.unwrap_or(0) + 1);
        }
    }

    /// One slot refers to it no longer; its own slots, if it is a table, are still referred to by a copy.
    pub(super) fn release(&mut self, entry: Entry) {
        if !entry.is_inner() && !entry.is_leaf() {
            return;
        }
        let id = piece(entry);
        if let Some(more) = self.shared.get(&id).copied() {
            self.journal.push((id, Some(more)));
            if more > 1 {
                self.shared.insert(id, more - 1)
            } else {
                self.shared.remove(&id)
            };
            return;
        }
        let length = self.length(entry);
        match self.fresh.remove(&id) {
            Some(length) => self.free(id, length),
            None => self.retired.push_back((self.commit, id, length)),
        }
    }

    /// As [`Self::release`], where no copy took over the slots.
    pub(super) fn release_whole(&mut self, entry: Entry) {
        if entry.is_inner() && !self.shared.contains_key(&piece(entry)) {
            let start = entry.base() - TABLE_FRONT as u32;
            for at in 1..table_length(entry) {
                self.release_whole(self.read(start + at));
            }
        }
        self.release(entry);
    }

    /// Places that a piece takes in its arena.
    pub(super) fn length(&self, entry: Entry) -> u32 {
        if entry.is_inner() { table_length(entry) } else { (entry.blocks() * self.tree.services.places()) as u32 }
    }

    pub(super) fn write(&self, at: u32, entry: Entry) {
        // SAFETY: only slots of fresh pieces are written: taken, and in no generation that was given out.
        unsafe { self.tables.write(at, entry) };
    }

    pub(super) fn write_block(&self, at: u32, block: Block) {
        // SAFETY: as above.
        unsafe { self.blocks.write(at, block) };
    }

    pub(super) fn read(&self, at: u32) -> Entry {
        // SAFETY: entries refer to slots in the arena, and the writer alone writes.
        unsafe { self.tables.slots.read(at as usize) }
    }

    pub(super) fn header(&self, base: u32) -> Header {
        Header::of(self.read(base - TABLE_FRONT as u32))
    }

    /// Most places that a packet may have open below here.
    pub(super) fn width(&self, entry: Entry) -> u32 {
        if !entry.is_inner() {
            return 1;
        }
        let below = self.header(entry.base()).width;
        if entry.has_rest() { below + self.width(self.read(entry.base() - 1)) } else { below }
    }
}
