//! Memory that successive versions of a table share.
//!
//! A version never changes. The next one is made by an [`Edit`]: it writes new blocks beside those in use and says
//! which old ones it no longer needs. Those are used again once the version that had them, and every older one, has
//! been dropped:
//!
//! ```text
//! words   [ block | block | block | free | block | not used yet … ]
//! v1  root ──┴───────┘       │              │
//! v2  root ──┴───────────────┴──────────────┘      the second block is free when v1 is dropped
//! ```
//! Only the newest version can be edited in place; whoever wants to go on from an older one, or finds the arena full,
//! builds anew.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks are counted in units of so many words (32 bytes) and begin at a multiple of it in memory.
pub(super) const UNIT: usize = 8;
/// An index of a `u16` in the arena fits an `i32`, as gather instructions ask.
const MAX_UNITS: usize = 1 << 27;
/// Words of a cache line.
const LINE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Block {
    /// In units from the start.
    pub(super) at: u32,
    pub(super) units: u32,
}

/// How many units hold so many words.
pub(super) fn units(words: usize) -> u32 {
    words.div_ceil(UNIT) as u32
}

#[derive(Debug)]
struct Arena {
    words: Box<[AtomicU32]>,
    /// The first word on a cache line.
    start: usize,
    units: u32,
    control: Mutex<Control>,
}

#[derive(Debug)]
struct Control {
    used: u32,
    /// Free blocks by their size.
    free: Vec<Vec<u32>>,
    /// Blocks that more than one entry refers to: how many more.
    shared: HashMap<u32, u32>,
    /// Versions not yet dropped, and dropped ones that an older version holds up; oldest first.
    versions: VecDeque<Life>,
    newest: u64,
}

#[derive(Debug, Default)]
struct Life {
    dropped: bool,
    /// Blocks that the next version does not have.
    retired: Vec<Block>,
}

/// A version's hold on its arena.
#[derive(Debug)]
pub(super) struct Version {
    arena: Arc<Arena>,
    number: u64,
}

impl Version {
    /// `None` when there are more than [`MAX_UNITS`]. `shared` says of blocks how often they are referred to beyond
    /// the first time.
    pub(super) fn first(content: &[u32], shared: HashMap<u32, u32>) -> Option<Self> {
        let used = content.len().div_ceil(UNIT);
        // Room for changes; memory that is not written to is not committed.
        let units = (used * 2 + (1 << 15)).min(MAX_UNITS);
        // One unit beyond the end, so that a wide load of the last value stays inside.
        let words = zeroed((units + 1) * UNIT + LINE);
        let start = words.as_ptr().align_offset(LINE * size_of::<u32>());
        if used > units || start >= LINE {
            return None;
        }
        for (word, value) in words[start..].iter().zip(content) {
            word.store(*value, Ordering::Relaxed);
        }
        let versions = VecDeque::from([Life::default()]);
        let control = Control { used: used as u32, free: Vec::new(), shared, versions, newest: 0 };
        let arena = Arena { words, start, units: units as u32, control: Mutex::new(control) };
        Some(Self { arena: Arc::new(arena), number: 0 })
    }

    /// `None` when a newer version exists.
    pub(super) fn edit(&self) -> Option<Edit<'_>> {
        let control = self.arena.lock();
        (control.newest == self.number).then(|| Edit {
            arena: &self.arena,
            control,
            fresh: HashSet::new(),
            retired: Vec::new(),
        })
    }

    /// Word `offset` of the block at `at`.
    pub(super) fn word(&self, at: u32, offset: usize) -> u32 {
        self.arena.word(at, offset)
    }

    /// The first word. All blocks of this version lie behind it, and nobody writes to them while it lives.
    pub(super) fn base(&self) -> *const u32 {
        self.arena.words[self.arena.start..].as_ptr().cast()
    }

    /// Words in use by this version and by others that are still there.
    pub(super) fn memory_bytes(&self) -> usize {
        let control = self.arena.lock();
        let free: usize = control.free.iter().enumerate().map(|(units, blocks)| units * blocks.len()).sum();
        (control.used as usize - free) * UNIT * size_of::<u32>()
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        let mut control = self.arena.lock();
        let oldest = control.newest + 1 - control.versions.len() as u64;
        if let Some(life) = control.versions.get_mut((self.number - oldest) as usize) {
            life.dropped = true;
        }
        while control.versions.len() > 1 && control.versions.front().is_some_and(|life| life.dropped) {
            let life = control.versions.pop_front().unwrap_or_default();
            life.retired.into_iter().for_each(|block| control.release(block));
        }
    }
}

impl Arena {
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn word(&self, at: u32, offset: usize) -> u32 {
        self.words[self.start + at as usize * UNIT + offset].load(Ordering::Relaxed)
    }

    fn set(&self, at: u32, offset: usize, value: u32) {
        self.words[self.start + at as usize * UNIT + offset].store(value, Ordering::Relaxed);
    }
}

impl Control {
    fn release(&mut self, block: Block) {
        let size = block.units as usize;
        if self.free.len() <= size {
            self.free.resize_with(size + 1, Vec::new);
        }
        self.free[size].push(block.at);
    }
}

/// The making of the next version. Dropped before [`Edit::finish`], it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Edit<'a> {
    arena: &'a Arc<Arena>,
    control: MutexGuard<'a, Control>,
    /// Blocks that only the version in the making has.
    fresh: HashSet<Block>,
    retired: Vec<Block>,
}

impl Edit<'_> {
    /// A block with undefined content. `None` when the arena is full.
    pub(super) fn take(&mut self, units: u32) -> Option<Block> {
        let free = self.control.free.get_mut(units as usize).and_then(Vec::pop);
        let at = match free {
            Some(at) => at,
            None if self.arena.units - self.control.used < units => return None,
            None => {
                self.control.used += units;
                self.control.used - units
            }
        };
        let block = Block { at, units };
        self.fresh.insert(block);
        Some(block)
    }

    /// A block with this one's content that may be written to: the same when it is new, else a copy in its place.
    pub(super) fn writable(&mut self, block: Block) -> Option<Block> {
        if self.fresh.contains(&block) {
            return Some(block);
        }
        let copy = self.take(block.units)?;
        for offset in 0..block.units as usize * UNIT {
            self.arena.set(copy.at, offset, self.arena.word(block.at, offset));
        }
        self.give_up(block);
        Some(copy)
    }

    /// One entry that referred to this block does so no more.
    pub(super) fn give_up(&mut self, block: Block) {
        if self.fresh.remove(&block) {
            self.control.release(block);
            return;
        }
        self.retired.push(block);
    }

    pub(super) fn word(&self, at: u32, offset: usize) -> u32 {
        self.arena.word(at, offset)
    }

    /// The block must be new or [`Edit::writable`].
    pub(super) fn set(&self, block: Block, offset: usize, value: u32) {
        debug_assert!(self.fresh.contains(&block) && offset < block.units as usize * UNIT);
        self.arena.set(block.at, offset, value);
    }

    pub(super) fn finish(mut self) -> Version {
        self.fresh.clear();
        let control = &mut *self.control;
        let mut retired = std::mem::take(&mut self.retired);
        retired.retain(|block| match control.shared.get_mut(&block.at) {
            Some(1) => control.shared.remove(&block.at).is_none(),
            Some(more) => {
                *more -= 1;
                false
            }
            None => true,
        });
        if let Some(life) = control.versions.back_mut() {
            life.retired = retired;
        }
        control.versions.push_back(Life::default());
        control.newest += 1;
        Version { arena: self.arena.clone(), number: control.newest }
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        fresh.into_iter().for_each(|block| self.control.release(block));
    }
}

/// Fresh memory from the system is zero already; only what is written to is committed.
fn zeroed(words: usize) -> Box<[AtomicU32]> {
    let plain = Box::into_raw(vec![0u32; words].into_boxed_slice());
    // SAFETY: `AtomicU32` has the size, alignment and bit validity of `u32`; the box is the only owner.
    unsafe { Box::from_raw(plain as *mut [AtomicU32]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(version: &Version, at: u32) -> u32 {
        version.word(at, 0)
    }

    fn replace(version: &Version, block: Block, value: u32) -> (Version, Block) {
        let mut edit = version.edit().unwrap();
        let copy = edit.writable(block).unwrap();
        edit.set(copy, 0, value);
        (edit.finish(), copy)
    }

    #[test]
    fn a_block_is_used_again_only_when_no_version_has_it() {
        let words: Vec<u32> = (0..UNIT as u32).collect();
        let v0 = Version::first(&words, HashMap::new()).unwrap();
        let b0 = Block { at: 0, units: 1 };
        let (v1, b1) = replace(&v0, b0, 100);
        let (v2, b2) = replace(&v1, b1, 200);
        assert!(v0.edit().is_none(), "an old version cannot be edited");
        drop(v1);
        let (v3, b3) = replace(&v2, b2, 300);
        assert_eq!([b0.at, b1.at, b2.at, b3.at], [0, 1, 2, 3], "v0 is older and holds up the block of v1");
        assert_eq!([content(&v0, b0.at), content(&v2, b2.at), content(&v3, b3.at)], [0, 200, 300]);
        drop(v0);
        let (v4, b4) = replace(&v3, b3, 400);
        assert!(b4.at < 2 && content(&v2, b2.at) == 200 && content(&v4, b4.at) == 400);
        drop((v2, v3));
        assert_eq!(v4.memory_bytes(), UNIT * 4);
    }

    #[test]
    fn an_edit_given_up_leaves_nothing() {
        let v0 = Version::first(&[0; UNIT], HashMap::new()).unwrap();
        let mut edit = v0.edit().unwrap();
        edit.writable(Block { at: 0, units: 1 }).unwrap();
        edit.take(3).unwrap();
        drop(edit);
        assert_eq!(v0.memory_bytes(), UNIT * 4);
        assert!(v0.edit().is_some());
    }

    #[test]
    fn a_shared_block_goes_with_its_last_reference() {
        let v0 = Version::first(&[7; UNIT], HashMap::from([(0, 1)])).unwrap();
        let block = Block { at: 0, units: 1 };
        let (v1, _) = replace(&v0, block, 8);
        drop(v0);
        assert_eq!((v1.memory_bytes(), content(&v1, 0)), (2 * UNIT * 4, 7));
        let (v2, _) = replace(&v1, block, 9);
        drop(v1);
        assert_eq!(v2.memory_bytes(), 2 * UNIT * 4, "the block is free, two copies are in use");
    }
}
