//! Changing a tree: the touched parts are copied, and a new generation refers to the copies.
//!
//! ```text
//!  generation 7   root ──► table ──► leaf A        replaced parts go to the retired list with the number of the
//!                  (copied) (copied)  (rewritten)  generation that replaced them; their slots are used again when
//!  generation 8   root' ─► table' ─► leaf A'       no older generation is alive
//!                             └────► leaf B        shared with generation 7
//! ```
//! Readers search while this happens, without a lock, and may do so because no slot is ever written that a living
//! generation refers to:
//! * A commit writes slots that it took from the free ones, or that it took itself before ([`TreeEditor::fresh`]), and
//!   meanings of free ranks. Arenas that are full are not grown but copied; older generations keep the old one.
//! * A slot is free when it was never used, when the commit that took it failed, or when all generations from before it
//!   was replaced are gone. Commits replace what they copy, and no later generation refers to it.
//! * That a generation is gone shows by its token, an `Arc` that every copy of the generation holds: when the list of
//!   tokens has the only one left, nobody can make another. Whoever drops a token does so with Release, and
//!   [`Arc::get_mut`] looks with Acquire: the last look of each reader comes before the first write.
//! * What is written is seen by readers because the generation that refers to it is handed over with Release and
//!   Acquire, as every safe way of handing it to another thread does.
//!
//! Generations are given up in order: one that is kept holds up the slots of all later ones. Let go of those that
//! readers have left before a commit, not after: then each table goes back and forth between two places, of which only
//! what differs is written, and the rest stays in the readers' caches.

mod pieces;

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::arena::Space;
use super::block::{Block, Entry, LANES, LEAF_LIMIT, Lane, RANK_LIMIT};
use super::engine::BuildError;
use super::isa::Isa;
use super::plan::{self, Cut, Hash, Planner, WIDTH_LIMIT};
use super::row::Row;
use super::tree::{self, Builder, Header, Parts, TABLE_FRONT, Tree, Zone, slots_of};

/// A leaf that grows to so many blocks, or so many times a power of two, is cut anew if possible.
const BLOCKS_BEFORE_CUT: usize = 8;
/// Room for changes in new arenas, in 1/256.
const SLACK: usize = 64;

/// One step of a commit.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Rows of one rank have one meaning; another one only when the rank was free, see `Editor::is_free`.
    Insert { row: &'a Row, rank: u32, meaning: u32 },
    /// The row exactly as it was inserted.
    Remove { row: &'a Row, rank: u32 },
}

/// Why a change cannot be made in place; a build of all rows is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RebuildNeeded {
    #[error("more distinct services than the structure has room for")]
    Services,
    #[error("a row looks at a property that no row looked at before")]
    Kind,
    #[error("a rank is beyond the range that the structure was built for, or still in use with another meaning")]
    Rank,
    #[error("too many rows that cannot be told apart meet in one place")]
    Crowded,
    #[error("the row to remove is not there")]
    Missing,
}

/// The writer's end of a tree.
#[derive(Debug)]
pub(super) struct TreeEditor {
    tree: Tree,
    tables: Space<Entry>,
    blocks: Space<Block>,
    /// Pieces that several slots refer to: how many more than one.
    shared: FxHashMap<Piece, u32>,
    /// Pieces made by the commit at hand, seen by nobody yet, with the slots they take.
    fresh: FxHashMap<Piece, u32>,
    /// What `shared` said before the commit at hand changed it.
    journal: Vec<(Piece, Option<u32>)>,
    /// By rank.
    uses: Vec<Use>,
    /// What `uses` said before the commit at hand changed it.
    uses_before: Vec<(u32, Use)>,
    /// Replaced pieces, with the commit that replaced them.
    retired: VecDeque<(u64, Piece, u32)>,
    /// Of the commits whose generations may be alive.
    alive: VecDeque<Arc<u64>>,
    commit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Piece {
    /// By base.
    Table(u32),
    /// By first block.
    Leaf(u32),
}

fn piece(entry: Entry) -> Piece {
    if entry.is_inner() { Piece::Table(entry.base()) } else { Piece::Leaf(entry.base()) }
}

/// Rows that have a rank, and the commit that took the last one away.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    rows: u32,
    gone_by: u64,
}

impl TreeEditor {
    pub(super) fn new(rows: &[Row], ranks: &[u32], meanings: &[u32], isa: Isa) -> Result<Self, BuildError> {
        let Parts { tree, shared, tables, blocks } = tree::build(rows, ranks, meanings, isa, SLACK)?;
        let mut uses = vec![Use::default(); ranks.last().map_or(0, |rank| *rank as usize + 1)];
        ranks.iter().for_each(|rank| uses[*rank as usize].rows += 1);
        Ok(Self {
            tables: Space::new(tree.tables.clone(), tables, Entry::EMPTY),
            blocks: Space::new(tree.blocks.clone(), blocks, Block::BLANK),
            shared: shared.into_iter().map(|(entry, more)| (piece(entry), more)).collect(),
            fresh: FxHashMap::default(),
            journal: Vec::new(),
            uses,
            uses_before: Vec::new(),
            retired: VecDeque::new(),
            alive: VecDeque::from([tree.alive.clone()]),
            commit: 0,
            tree,
        })
    }

    /// The generation of the last commit.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Makes all changes or none. The generation that comes out shares what is not touched with the one before.
    ///
    /// # Errors
    /// When the changes do not fit the structure. Nothing has changed then.
    pub(super) fn commit(&mut self, changes: &[Change<'_>]) -> Result<&Tree, RebuildNeeded> {
        self.reclaim();
        self.commit += 1;
        let (before, mark) = (self.tree.clone(), self.retired.len());
        for change in changes {
            if let Err(reason) = self.change(change) {
                self.undo(before, mark);
                return Err(reason);
            }
        }
        self.fresh.clear();
        self.journal.clear();
        self.uses_before.clear();
        self.tree.tables = self.tables.slots.clone();
        self.tree.blocks = self.blocks.slots.clone();
        self.tree.alive = Arc::new(self.commit);
        self.alive.push_back(self.tree.alive.clone());
        Ok(&self.tree)
    }

    /// What the failed commit made was never seen; what it replaced is in use as before.
    fn undo(&mut self, before: Tree, mark: usize) {
        self.tree = before;
        self.retired.truncate(mark);
        for (piece, length) in std::mem::take(&mut self.fresh) {
            self.free(piece, length);
        }
        for (rank, before) in std::mem::take(&mut self.uses_before).into_iter().rev() {
            self.uses[rank as usize] = before;
        }
        for (piece, more) in std::mem::take(&mut self.journal).into_iter().rev() {
            match more {
                Some(more) => self.shared.insert(piece, more),
                None => self.shared.remove(&piece),
            };
        }
    }

    /// Takes back the slots that no living generation refers to.
    fn reclaim(&mut self) {
        // A generation's number is held by the generation itself and by this list.
        while self.alive.len() > 1 && self.alive.front_mut().is_some_and(|number| Arc::get_mut(number).is_some()) {
            self.alive.pop_front();
        }
        let oldest = self.oldest();
        while let Some((replaced_by, piece, length)) = self.retired.front().copied() {
            if replaced_by > oldest {
                break;
            }
            self.free(piece, length);
            self.retired.pop_front();
        }
    }

    /// Whether no living generation has rows of this rank.
    pub(super) fn is_free(&self, rank: u32) -> bool {
        self.uses.get(rank as usize).is_none_or(|uses| uses.rows == 0 && uses.gone_by <= self.oldest())
    }

    /// The oldest commit whose generation may be alive.
    fn oldest(&self) -> u64 {
        self.alive.front().map_or(self.commit, |number| **number)
    }

    /// Notes one row more or one fewer of a rank. A rank that had none gets its meaning.
    fn note_use(&mut self, rank: u32, meaning: Option<u32>) -> Result<(), RebuildNeeded> {
        if self.uses.len() <= rank as usize {
            self.uses.resize(rank as usize + 1, Use::default());
        }
        let before = self.uses[rank as usize];
        if let Some(meaning) = meaning.filter(|_| before.rows == 0) {
            let known = (rank as usize) < self.tree.meanings.count() && self.tree.meaning(rank) == meaning;
            if !known {
                self.mean(rank, meaning)?;
            }
        }
        self.uses_before.push((rank, before));
        let uses = &mut self.uses[rank as usize];
        match meaning {
            Some(_) => uses.rows += 1,
            None => uses.rows = uses.rows.saturating_sub(1),
        }
        if uses.rows == 0 {
            uses.gone_by = self.commit;
        }
        Ok(())
    }

    /// Gives a free rank its meaning.
    fn mean(&mut self, rank: u32, meaning: u32) -> Result<(), RebuildNeeded> {
        if !self.is_free(rank) {
            return Err(RebuildNeeded::Rank);
        }
        let count = self.tree.meanings.count();
        if count <= rank as usize {
            // SAFETY: below the count, and the writer alone writes.
            let mut grown: Vec<u32> = (0..count).map(|at| unsafe { self.tree.meanings.read(at) }).collect();
            grown.resize(rank as usize + 1, 0);
            self.tree.meanings = tree::filled(&grown, SLACK, 256, 0);
        }
        // SAFETY: in bounds; no living generation looks at the meaning of a free rank.
        unsafe { self.tree.meanings.write(rank as usize, meaning) };
        Ok(())
    }

    fn free(&mut self, piece: Piece, length: u32) {
        match piece {
            Piece::Table(base) => self.tables.give(base - TABLE_FRONT as u32, length),
            Piece::Leaf(first) => self.blocks.give(first, length),
        }
    }

    fn change(&mut self, change: &Change<'_>) -> Result<(), RebuildNeeded> {
        let (row, rank, meaning) = match *change {
            Change::Insert { row, rank, meaning } => (row, rank, Some(meaning)),
            Change::Remove { row, rank } => (row, rank, None),
        };
        let insert = meaning.is_some();
        if !self.tree.kinded && row.is_kinded() {
            return Err(RebuildNeeded::Kind);
        }
        if rank >= RANK_LIMIT || rank >> self.tree.scale >= 0xffff {
            return Err(RebuildNeeded::Rank);
        }
        self.note_use(rank, meaning)?;
        let service = match self.tree.services.number(&row.service) {
            Some(number) => number,
            None if insert => {
                let services = self.tree.services.with(&row.service).map_err(|_| RebuildNeeded::Services)?;
                self.tree.services = Arc::new(services);
                self.tree.services.number(&row.service).ok_or(RebuildNeeded::Services)?
            }
            None => return Err(RebuildNeeded::Missing),
        };
        if insert && (row.vlan.is_some() || row.vni.is_some()) {
            Arc::make_mut(&mut self.tree.zones).insert(rank, Zone { vlan: row.vlan, vni: row.vni });
        } else if insert && self.tree.zones.contains_key(&rank) {
            // It was of a row that had the rank before.
            Arc::make_mut(&mut self.tree.zones).remove(&rank);
        }
        let lane = Lane::new(row, rank, service, self.tree.kinded, &self.tree.services);
        let edit = Edit { row, lane, service, insert };
        for at in 0..self.tree.roots.len() {
            let root = self.tree.roots[at];
            if root.is_inner() && !root.has_rest() && self.places(root, &edit).1 {
                continue;
            }
            self.tree.roots[at] = self.edit(root, &edit, true)?;
            return if self.width(self.tree.roots[at]) > WIDTH_LIMIT { Err(RebuildNeeded::Crowded) } else { Ok(()) };
        }
        if !insert {
            return Err(RebuildNeeded::Missing);
        }
        let root = self.leaf(&[lane])?;
        self.tree.roots.push(root);
        Ok(())
    }

    /// What `entry` becomes.
    fn edit(&mut self, entry: Entry, edit: &Edit<'_>, top: bool) -> Result<Entry, RebuildNeeded> {
        if !entry.is_inner() {
            return self.edit_leaf(entry, edit, top);
        }
        let (offsets, rest) = self.places(entry, edit);
        let base = self.writable(entry);
        let mut entry = entry.with_base(base);
        let mut header = self.header(base);
        // Slots that have a part in common go on having one in common.
        let mut done: Vec<(Entry, Entry)> = Vec::new();
        for place in offsets.into_iter().map(|offset| base.wrapping_add_signed(offset)) {
            let old = self.read(place);
            let new = match done.iter().find(|(before, _)| *before == old) {
                Some((_, new)) => {
                    let new = *new;
                    self.retain(new);
                    self.release_whole(old);
                    new
                }
                None => {
                    let new = self.edit(old, edit, false)?;
                    done.push((old, new));
                    new
                }
            };
            self.write(place, new);
            if !rest {
                header.width = header.width.max(self.width(new));
            }
        }
        self.write(base - TABLE_FRONT as u32, header.entry());
        if rest {
            entry = entry.with_rest();
        }
        if edit.insert {
            entry = entry.with_least(entry.least().min(edit.lane.least(self.tree.scale)));
        }
        Ok(entry)
    }

    /// Offsets, from a table's base, of the slots that a row goes to; and whether that is the rest.
    fn places(&self, table: Entry, edit: &Edit<'_>) -> (Vec<i32>, bool) {
        let cut = Cut { window: table.window(), open: self.header(table.base()).open };
        match slots_of(&self.tree, cut, edit.row, edit.service) {
            plan::Slots::Range(first, end) => ((first as i32..end as i32).collect(), false),
            plan::Slots::Listed(classes) => (classes.iter().map(|slot| i32::from(*slot as i16)).collect(), false),
            plan::Slots::Rest => (vec![-1], true),
        }
    }

    fn edit_leaf(&mut self, leaf: Entry, edit: &Edit<'_>, top: bool) -> Result<Entry, RebuildNeeded> {
        let mut lanes = Vec::with_capacity(leaf.blocks() * LANES + 1);
        let (first, places) = (leaf.base() as usize, self.tree.services.places());
        for at in 0..leaf.blocks() {
            // SAFETY: a leaf's blocks are in the arena.
            let block = unsafe { self.blocks.slots.read(first + at * places) };
            lanes.extend((0..block.len()).map(|lane| block.lane(lane)));
        }
        if edit.insert {
            let at = lanes.partition_point(|lane| lane.rank <= edit.lane.rank);
            lanes.insert(at, edit.lane);
        } else {
            let at = lanes.iter().position(|lane| *lane == edit.lane).ok_or(RebuildNeeded::Missing)?;
            lanes.remove(at);
        }
        let blocks = lanes.len().div_ceil(LANES);
        let crowded =
            edit.insert && lanes.len() % LANES == 1 && blocks > BLOCKS_BEFORE_CUT && (blocks - 1).is_power_of_two();
        let table = if crowded { self.cut(&lanes, top) } else { None };
        let new = match table {
            Some(table) => table,
            None => self.leaf(&lanes)?,
        };
        self.release(leaf);
        Ok(new)
    }

    /// Puts lanes, ascending by rank, into blocks.
    fn leaf(&mut self, lanes: &[Lane]) -> Result<Entry, RebuildNeeded> {
        let Some(first_lane) = lanes.first() else { return Ok(Entry::EMPTY) };
        let blocks = lanes.len().div_ceil(LANES);
        if blocks > LEAF_LIMIT {
            return Err(RebuildNeeded::Crowded);
        }
        let services = self.tree.services.clone();
        let length = (blocks * services.places()) as u32;
        let first = self.blocks.take(length);
        let mut filled: Vec<Block> = Vec::with_capacity(length as usize);
        lanes.chunks(LANES).for_each(|chunk| tree::push_block(&mut filled, chunk.iter().copied(), &services));
        (first..).zip(filled).for_each(|(at, block)| self.write_block(at, block));
        self.fresh.insert(Piece::Leaf(first), length);
        Ok(Entry::leaf(first, blocks, first_lane.least(self.tree.scale)))
    }

    /// A crowded leaf as tables, if that helps. Only the topmost may have a rest: else a packet could come to have
    /// more places open than there is room for.
    fn cut(&mut self, lanes: &[Lane], top: bool) -> Option<Entry> {
        let rows: Vec<Row> = lanes.iter().map(|lane| lane.row(&self.tree)).collect();
        let service_of: Vec<u16> = lanes.iter().map(|lane| lane.service(self.tree.services.wide)).collect();
        let services = self.tree.services.clone();
        let hash = Hash { bits: self.tree.hash.bits.filter(|_| self.tree.looks_at(super::block::Field::Hash)) };
        let mut planner = Planner::new(&rows, &service_of, &services, hash);
        planner.limit_width(if top { WIDTH_LIMIT / 2 } else { 1 });
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        let plan = planner.plan(&all, 1);
        if matches!(plan.shape, plan::Shape::Leaf(_)) {
            return None;
        }
        let mut builder = Builder::new(&services, lanes.to_vec(), self.tree.scale);
        let entry = builder.lay_out(&plan, false).ok()?;
        self.tree.fields |= builder.fields;
        Some(self.adopt(&builder, entry))
    }
}

struct Edit<'a> {
    row: &'a Row,
    lane: Lane,
    service: u16,
    insert: bool,
}

/// Slots that a table takes, with its front.
fn table_length(entry: Entry) -> u32 {
    (1 << entry.window().bits) + TABLE_FRONT as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::row::Kind;
    use super::super::tests::{ALL, Flavour, PLAIN, Random, WIDE, parts, row, rows};
    use super::*;

    impl TreeEditor {
        /// Every slot ever used belongs to one piece, which is in the newest generation, replaced, or free; and pieces
        /// are referred to as often as it says.
        fn audit(&self) {
            let mut references: FxHashMap<Piece, (u32, u32)> = FxHashMap::default();
            self.tree.roots.iter().for_each(|root| self.count(*root, &mut references));
            let mut runs: [BTreeMap<u32, u32>; 2] = Default::default();
            let mut add = |space: usize, start: u32, length: u32| {
                assert_eq!(runs[space].insert(start, length), None, "in use twice");
            };
            let mut add_piece = |piece: Piece, length: u32| match piece {
                Piece::Table(base) => add(0, base - TABLE_FRONT as u32, length),
                Piece::Leaf(first) => add(1, first, length),
            };
            for (piece, (count, length)) in &references {
                assert_eq!(self.shared.get(piece).copied().unwrap_or(0) + 1, *count, "{piece:?}");
                add_piece(*piece, *length);
            }
            assert!(self.shared.keys().all(|piece| references.contains_key(piece)));
            self.retired.iter().for_each(|(_, piece, length)| add_piece(*piece, *length));
            for (space, free) in [&self.tables.free, &self.blocks.free].into_iter().enumerate() {
                free.iter().for_each(|(length, starts)| starts.iter().for_each(|start| add(space, *start, *length)));
            }
            for (runs, used) in runs.into_iter().zip([self.tables.used, self.blocks.used]) {
                let end = runs.into_iter().fold(0, |end, (start, length)| {
                    assert_eq!(start, end, "overlaps, or is lost");
                    start + length
                });
                assert_eq!(end as usize, used);
            }
            assert!(self.fresh.is_empty() && self.journal.is_empty() && self.uses_before.is_empty());
        }

        /// How often each piece below `entry` is referred to, and its length.
        fn count(&self, entry: Entry, references: &mut FxHashMap<Piece, (u32, u32)>) {
            if !entry.is_inner() && !entry.is_leaf() {
                return;
            }
            let length = self.length(entry);
            let (count, known) = references.entry(piece(entry)).or_insert((0, length));
            *count += 1;
            assert_eq!(*known, length);
            if *count == 1 && entry.is_inner() {
                let slots = entry.base() - 1..entry.base() + (1 << entry.window().bits);
                slots.for_each(|at| self.count(self.read(at), references));
            }
        }
    }

    /// Commits at random, some of which fail, while an old generation is kept for some time.
    fn commits(seed: u64, flavour: Flavour, start: usize, commits: usize, most: u64) {
        let mut random = Random(seed);
        let mut live = rows(&mut random, start, flavour);
        let (plain, ranks) = parts(&live);
        let meanings = vec![0; ranks.last().map_or(0, |rank| *rank as usize + 1)];
        let mut editor = TreeEditor::new(&plain, &ranks, &meanings, Isa::Portable).expect("builds");
        editor.audit();
        assert_eq!(editor.tree.services.wide, flavour.services > 1000, "the flavour is what it says");
        let mut kept = VecDeque::new();
        for _ in 0..commits {
            let mut next = live.clone();
            let mut steps = Vec::new();
            for _ in 0..1 + random.below(most) {
                if random.chance(50) && !next.is_empty() {
                    steps.push((false, next.swap_remove(random.below(next.len() as u64) as usize)));
                } else {
                    let plain = Row { vlan: None, vni: None, ..row(&mut random, flavour) };
                    steps.push((true, (random.below(4 * start as u64) as u32, plain)));
                    next.push(steps[steps.len() - 1].1.clone());
                }
            }
            if random.chance(20) {
                let (rank, row) = next[random.below(next.len() as u64) as usize].clone();
                steps.push((false, (rank, Row { src: super::super::Side::new(Kind::Address, 1, 32), ..row })));
            }
            let steps: Vec<Change<'_>> = steps
                .iter()
                .map(|(insert, (rank, row))| match insert {
                    true => Change::Insert { row, rank: *rank, meaning: 0 },
                    false => Change::Remove { row, rank: *rank },
                })
                .collect();
            if editor.commit(&steps).is_ok() {
                live = next;
                kept.push_back(editor.tree().clone());
            }
            if random.chance(10) || kept.len() > 8 {
                kept.drain(..random.below(kept.len() as u64 + 1) as usize);
            }
            editor.audit();
        }
        kept.clear();
        editor.commit(&[]).expect("nothing to do");
        editor.audit();
        assert!(editor.retired.is_empty());
    }

    #[test]
    fn every_slot_is_accounted_for() {
        commits(1, PLAIN, 400, 300, 4);
        commits(2, PLAIN, 3000, 100, 60);
        commits(3, ALL, 400, 200, 4);
        commits(4, ALL, 2000, 100, 60);
        commits(5, WIDE, 1500, 100, 10);
    }
}
