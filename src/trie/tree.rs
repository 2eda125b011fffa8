//! The SIMD-block trie: tables that choose by windows of bits, leaves that compare sixteen rows at once.
//!
//! ```text
//!  root 0 ── table on 12 bits of the destination ──┬─► table on 6 bits of the source ─► leaf
//!                                                  └─► leaf: block, block
//!  root 1 ── rows too wide for root 0's window ── …
//! ```

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::arena::Slots;
use super::block::{
    Block, Entry, FIELDS, FLAG_BITS, Field, LANES, LEAF_LIMIT, Lane, MORE, PASSIVE, PortBlock, RANK_LIMIT, Window,
};
use super::engine::BuildError;
use super::isa::Isa;
use super::plan::{Cut, Hash, Plan, Planner, Prefix, Shape, prefix};
use super::row::{Key, Kind, Row, Side};
use super::services::{Services, TooManyServices};

/// One generation. Immutable: what it refers to in the arenas is not written as long as it lives.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) tables: Arc<Slots<Entry>>,
    pub(super) blocks: Arc<Slots<Block>>,
    pub(super) roots: Vec<Entry>,
    /// What each rank stands for, for the engine's users.
    pub(super) meanings: Arc<Slots<u32>>,
    pub(super) services: Arc<Services>,
    /// VLAN and VNI conditions, by rank.
    pub(super) zones: Arc<HashMap<u32, Zone>>,
    pub(super) hash: Hash,
    /// Ranks are shifted by so much to fit an entry.
    pub(super) scale: u32,
    /// Rows look at more than addresses.
    pub(super) kinded: bool,
    /// Fields of windows, as bits.
    pub(super) fields: u32,
    pub(super) isa: Isa,
    /// The number of the commit that made it. The writer keeps the other reference and sees by it whether the
    /// generation lives.
    pub(super) alive: Arc<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) vlan: Option<u16>,
    pub(super) vni: Option<u32>,
}

impl Tree {
    pub(super) fn looks_at(&self, field: Field) -> bool {
        self.fields >> (field as u32) & 1 == 1
    }

    pub(super) fn in_zone(&self, rank: u32, vlan: u16, vni: u32) -> bool {
        self.zones.get(&rank).is_none_or(|zone| {
            zone.vlan.is_none_or(|wanted| wanted == vlan) && zone.vni.is_none_or(|wanted| wanted == vni)
        })
    }

    /// A slot of a table.
    pub(super) fn entry(&self, at: usize) -> Entry {
        // SAFETY: entries of this generation refer to slots in the arena, which are not written while it lives.
        unsafe { self.tables.read(at) }
    }

    pub(super) fn meaning(&self, rank: u32) -> u32 {
        assert!((rank as usize) < self.meanings.count(), "rank {rank} has no meaning");
        // SAFETY: in bounds; the meaning of a rank that a living generation has is not written.
        unsafe { self.meanings.read(rank as usize) }
    }

    pub(super) fn leaf_blocks(&self, leaf: Entry) -> impl Iterator<Item = Block> {
        let (first, places) = (leaf.base() as usize, self.services.places());
        // SAFETY: as above.
        (0..leaf.blocks()).map(move |at| unsafe { self.blocks.read(first + at * places) })
    }

    /// Calls `visit` with the rank and flags of every row that holds `key`, in no order, and with the entries gone
    /// through.
    pub(super) fn walk(&self, key: &Key, mut visit: impl FnMut(Step)) {
        self.roots.iter().for_each(|root| self.walk_from(*root, key, &mut visit));
    }

    fn walk_from(&self, entry: Entry, key: &Key, visit: &mut impl FnMut(Step)) {
        if entry.is_inner() {
            let window = entry.window();
            visit(Step::Table { window, rest: entry.has_rest() });
            let slot = entry.slot(self.field_of(key, window.field)) as usize;
            self.walk_from(self.entry(slot), key, visit);
            if entry.has_rest() {
                self.walk_from(self.entry(entry.base() as usize - 1), key, visit);
            }
        } else if entry.is_leaf() {
            visit(Step::Leaf { blocks: entry.blocks() });
            for block in self.leaf_blocks(entry) {
                for lane in (0..block.len()).map(|lane| block.lane(lane)).filter(|lane| self.lane_holds(lane, key)) {
                    visit(Step::Row { rank: lane.rank });
                }
            }
        }
    }

    /// Calls `visit` with the ranks below `below` of passive rows that hold `key`. Goes nowhere where all rows rank
    /// behind that.
    pub(super) fn passive(&self, key: &Key, below: u32, visit: &mut impl FnMut(u32)) {
        // Lanes not in use have a rank beyond all others.
        let below = below.min(RANK_LIMIT);
        self.roots.iter().for_each(|root| self.passive_from(*root, key, below, visit));
    }

    fn passive_from(&self, entry: Entry, key: &Key, below: u32, visit: &mut impl FnMut(u32)) {
        if u32::from(entry.least()) << self.scale >= below {
            return;
        }
        if entry.is_inner() {
            let slot = entry.slot(self.field_of(key, entry.window().field)) as usize;
            self.passive_from(self.entry(slot), key, below, visit);
            if entry.has_rest() {
                self.passive_from(self.entry(entry.base() as usize - 1), key, below, visit);
            }
        } else if entry.is_leaf() {
            for at in 0..entry.blocks() {
                // SAFETY: a leaf's blocks are in the arena and not written while this generation lives.
                let block = unsafe { &*self.blocks.as_ptr().add(entry.base() as usize + at * self.services.places()) };
                for (lane, rank) in block.rank.iter().enumerate() {
                    if rank >> FLAG_BITS >= below {
                        return;
                    }
                    if rank & PASSIVE != 0 && self.lane_holds(&block.lane(lane), key) {
                        visit(rank >> FLAG_BITS);
                    }
                }
            }
        }
    }

    fn lane_holds(&self, lane: &Lane, key: &Key) -> bool {
        let (src, dst) = (decode(lane.src, lane.src_code, self.kinded), decode(lane.dst, lane.dst_code, self.kinded));
        let number = usize::from(lane.service(self.services.wide));
        let rank = lane.rank >> FLAG_BITS;
        src.holds(key.src[src.kind as usize])
            && dst.holds(key.dst[dst.kind as usize])
            && self.services.list[number].holds(key.protocol, key.src_port, key.dst_port)
            && (lane.rank & MORE == 0 || self.in_zone(rank, key.vlan, key.vni))
    }

    fn field_of(&self, key: &Key, field: u8) -> u32 {
        const KINDS: u8 = Kind::COUNT as u8;
        let class = |at: usize, value: u16| u32::from(self.services.dimensions[at].classes.get(value).seen);
        match field {
            0..KINDS => key.src[usize::from(field)],
            KINDS..10 => key.dst[usize::from(field - KINDS)],
            10 => u32::from(key.vlan),
            11 => key.vni,
            12 => class(0, key.src_port),
            13 => class(1, key.dst_port),
            14 => class(2, key.protocol),
            _ => self.hash.bits.map_or(0, |bits| Hash::of(key.src[0], key.dst[0], bits)),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.tables.memory_bytes()
            + self.blocks.memory_bytes()
            + self.meanings.memory_bytes()
            + size_of_val(&*self.roots)
            + self.services.memory_bytes()
            + self.zones.capacity() * size_of::<(u32, Zone)>()
    }
}

/// A step on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Table {
        window: Window,
        rest: bool,
    },
    Leaf {
        blocks: usize,
    },
    /// `rank << FLAG_BITS | flags` of a row that holds the packet.
    Row {
        rank: u32,
    },
}

impl Lane {
    pub(super) fn new(row: &Row, rank: u32, service: u16, kinded: bool, services: &Services) -> Self {
        let wide = services.wide;
        let more = row.vlan.is_some() | row.vni.is_some() | services.is_more(service);
        let flags = if row.passive { PASSIVE } else { 0 } | if more { MORE } else { 0 };
        let [service_byte, service_bit] =
            if wide { service.to_le_bytes() } else { [(service / 8) as u8, 1 << (service % 8)] };
        Self {
            src: row.src.value,
            dst: row.dst.value,
            rank: rank << FLAG_BITS | flags,
            src_code: encode(&row.src, kinded),
            dst_code: encode(&row.dst, kinded),
            service_byte,
            service_bit,
        }
    }

    /// The rank as entries have it.
    pub(super) fn least(&self, scale: u32) -> u16 {
        (self.rank >> FLAG_BITS >> scale) as u16
    }

    pub(super) fn service(&self, wide: bool) -> u16 {
        if wide {
            u16::from_le_bytes([self.service_byte, self.service_bit])
        } else {
            u16::from(self.service_byte) * 8 + self.service_bit.trailing_zeros() as u16
        }
    }

    /// The row it was made of.
    pub(super) fn row(&self, tree: &Tree) -> Row {
        let zone = tree.zones.get(&(self.rank >> FLAG_BITS)).filter(|_| self.rank & MORE != 0);
        Row {
            src: decode(self.src, self.src_code, tree.kinded),
            dst: decode(self.dst, self.dst_code, tree.kinded),
            service: tree.services.list[usize::from(self.service(tree.services.wide))].clone(),
            vlan: zone.and_then(|zone| zone.vlan),
            vni: zone.and_then(|zone| zone.vni),
            passive: self.rank & PASSIVE != 0,
        }
    }
}

/// "Any" where rows have kinds: compares the row's zero with a packet's eighth value, always zero.
const ANY_KIND: u8 = 7 << 5;

fn encode(side: &Side, kinded: bool) -> u8 {
    match (kinded, side.len) {
        (false, len) => 32 - len,
        (true, 0) => ANY_KIND,
        (true, len) => (side.kind as u8) << 5 | (32 - len),
    }
}

fn decode(value: u32, code: u8, kinded: bool) -> Side {
    const KINDS: [Kind; Kind::COUNT] = [Kind::Address, Kind::AddressSet, Kind::MacSet, Kind::VlanSet, Kind::VniSet];
    if !kinded {
        return Side { kind: Kind::Address, value, len: 32 - code };
    }
    match KINDS.get(usize::from(code >> 5)) {
        Some(kind) => Side { kind: *kind, value, len: 32 - (code & 31) },
        None => Side::ANY,
    }
}

/// A tree that is being built: arenas that still grow.
pub(super) struct Builder<'a> {
    services: &'a Services,
    /// By row.
    lanes: Vec<Lane>,
    scale: u32,
    pub(super) tables: Vec<Entry>,
    pub(super) blocks: Vec<Block>,
    /// Tables and leaves that several slots refer to: how many more than one.
    pub(super) shared: HashMap<Entry, u32>,
    pub(super) fields: u32,
    leaves: HashMap<Vec<u32>, Entry>,
    done: HashMap<*const Plan, Entry>,
}

/// A table is preceded by its rest and, before that, its header.
pub(super) const TABLE_FRONT: usize = 2;

/// What only the writer needs to know of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// See [`Cut::open`].
    pub(super) open: u32,
    /// Most places that a packet has open at once below one of the slots.
    pub(super) width: u32,
}

impl Header {
    pub(super) fn of(entry: Entry) -> Self {
        Self { open: entry.0 as u32, width: (entry.0 >> 32) as u32 }
    }

    pub(super) fn entry(self) -> Entry {
        Entry(u64::from(self.open) | u64::from(self.width) << 32)
    }
}

impl<'a> Builder<'a> {
    pub(super) fn new(services: &'a Services, lanes: Vec<Lane>, scale: u32) -> Self {
        Self {
            services,
            lanes,
            scale,
            tables: Vec::new(),
            blocks: Vec::new(),
            shared: HashMap::new(),
            fields: 0,
            leaves: HashMap::new(),
            done: HashMap::new(),
        }
    }

    fn leaf(&mut self, rows: &[u32]) -> Result<Entry, BuildError> {
        if let Some(leaf) = self.leaves.get(rows) {
            *self.shared.entry(*leaf).or_default() += 1;
            return Ok(*leaf);
        }
        let first = self.blocks.len() as u32;
        let blocks = rows.len().div_ceil(LANES);
        if blocks > LEAF_LIMIT {
            return Err(BuildError::TooManyAlike { rows: rows.len(), first: rows[0] });
        }
        for chunk in rows.chunks(LANES) {
            push_block(&mut self.blocks, chunk.iter().map(|row| self.lanes[*row as usize]), self.services);
        }
        let least = self.lanes[rows[0] as usize].least(self.scale);
        let leaf = Entry::leaf(first, blocks, least);
        self.leaves.insert(rows.to_vec(), leaf);
        Ok(leaf)
    }

    /// Lays out a plan. `top`: its rest is not part of it.
    pub(super) fn lay_out(&mut self, plan: &Rc<Plan>, top: bool) -> Result<Entry, BuildError> {
        let (cut, slots, rest) = match &plan.shape {
            Shape::Leaf(rows) => return self.leaf(rows),
            Shape::Table { cut, slots, rest } => (cut, slots, rest.as_ref().filter(|_| !top)),
        };
        if let Some(entry) = self.done.get(&Rc::as_ptr(plan)).filter(|_| !top) {
            *self.shared.entry(*entry).or_default() += 1;
            return Ok(*entry);
        }
        let base = self.tables.len() + TABLE_FRONT;
        self.tables.resize(base + (1 << cut.window.bits), Entry::EMPTY);
        let width = slots.iter().map(|(_, plan)| plan.width).max().unwrap_or(1);
        self.tables[base - TABLE_FRONT] = Header { open: cut.open, width }.entry();
        self.fields |= 1 << cut.window.field;
        let mut least = Entry::EMPTY.least();
        for (slot, plan) in slots {
            let entry = self.lay_out(plan, false)?;
            self.tables[base + *slot as usize] = entry;
            least = least.min(entry.least());
        }
        if let Some(plan) = rest {
            let entry = self.lay_out(plan, false)?;
            self.tables[base - 1] = entry;
            least = least.min(entry.least());
        }
        let base = u32::try_from(base).map_err(|_| BuildError::TooLarge)?;
        let entry = Entry::inner(base, cut.window, rest.is_some(), least);
        if !top {
            self.done.insert(Rc::as_ptr(plan), entry);
        }
        Ok(entry)
    }
}

/// Up to sixteen lanes as a block, and their ports where blocks have two places.
pub(super) fn push_block(blocks: &mut Vec<Block>, lanes: impl Iterator<Item = Lane>, services: &Services) {
    let (mut block, mut ports) = (Block::BLANK, PortBlock::BLANK);
    for (at, lane) in lanes.enumerate() {
        block.set(at, &lane);
        if services.wide {
            ports.set(at, &services.list[usize::from(lane.service(true))]);
        }
    }
    blocks.push(block);
    if services.wide {
        blocks.push(ports.as_block());
    }
}

/// What is built once and changed afterwards.
pub(super) struct Parts {
    pub(super) tree: Tree,
    pub(super) shared: HashMap<Entry, u32>,
    /// Slots in use.
    pub(super) tables: usize,
    pub(super) blocks: usize,
}

/// Builds a tree of rows with ranks, ascending; rows of one rank are alternatives of each other. `meanings` has what
/// each rank stands for, if anything. `slack` is how much of the arenas is left free for changes, in 1/256.
pub(super) fn build(
    rows: &[Row],
    ranks: &[u32],
    meanings: &[u32],
    isa: Isa,
    slack: usize,
) -> Result<Parts, BuildError> {
    debug_assert!(ranks.is_sorted() && ranks.len() == rows.len());
    let services =
        Services::build(rows.iter().map(|row| &row.service)).map_err(|TooManyServices| BuildError::TooManyServices)?;
    let service_of: Vec<u16> = rows.iter().filter_map(|row| services.number(&row.service)).collect();
    let kinded = rows.iter().any(Row::is_kinded);
    let most = ranks.last().copied().unwrap_or(0);
    if most >= RANK_LIMIT {
        return Err(BuildError::TooLarge);
    }
    // Room for ranks that come later: as if there were twice as many.
    let scale = (0..).find(|scale| (most << 1 | 1) >> scale < 0xffff).unwrap_or(0);
    let hash = if kinded { Hash::default() } else { best_hash(rows) };
    let lanes = rows.iter().zip(ranks).zip(&service_of);
    let lanes = lanes.map(|((row, rank), service)| Lane::new(row, *rank, *service, kinded, &services)).collect();
    let mut planner = Planner::new(rows, &service_of, &services, hash);
    let mut builder = Builder::new(&services, lanes, scale);
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    let mut plan = (!rows.is_empty()).then(|| planner.plan(&all, 0));
    let mut roots = Vec::new();
    while let Some(root) = plan {
        roots.push(builder.lay_out(&root, true)?);
        plan = match &root.shape {
            Shape::Table { rest, .. } => rest.clone(),
            Shape::Leaf(_) => None,
        };
    }
    let zoned = rows.iter().zip(ranks).filter(|(row, _)| row.vlan.is_some() || row.vni.is_some());
    let zones = zoned.map(|(row, rank)| (*rank, Zone { vlan: row.vlan, vni: row.vni })).collect();
    let Builder { tables, blocks, shared, fields, .. } = builder;
    let (used_tables, used_blocks) = (tables.len(), blocks.len());
    let tree = Tree {
        tables: filled(&tables, slack, 4096, Entry::EMPTY),
        blocks: filled(&blocks, slack, 64, Block::BLANK),
        roots,
        meanings: filled(meanings, slack, 64, 0),
        services: Arc::new(services),
        zones: Arc::new(zones),
        hash,
        scale,
        kinded,
        fields,
        isa,
        alive: Arc::new(0),
    };
    Ok(Parts { tree, shared, tables: used_tables, blocks: used_blocks })
}

/// An arena with these elements and room for more.
pub(super) fn filled<T: Copy>(elements: &[T], slack: usize, least: usize, blank: T) -> Arc<Slots<T>> {
    let room = if slack == 0 { 0 } else { (elements.len() * slack / 256).max(least) };
    let slots = Slots::new(elements.len() + room, blank);
    for (at, element) in elements.iter().enumerate() {
        // SAFETY: in bounds, and nobody else knows the arena yet.
        unsafe { slots.write(at, *element) };
    }
    slots
}

/// Leading bits of source and destination that together tell most rows apart, if they do.
fn best_hash(rows: &[Row]) -> Hash {
    const LENGTHS: [u8; 10] = [8, 12, 16, 20, 22, 24, 26, 28, 30, 32];
    let sample: Vec<&Row> = rows.iter().step_by((rows.len() / 4096).max(1)).collect();
    let all = sample.len() as f64;
    let (mut hash, mut best) = (Hash::default(), 0.0);
    let mut pairs: Vec<u64> = Vec::with_capacity(sample.len());
    for src in LENGTHS {
        for dst in LENGTHS {
            pairs.clear();
            let fitting = sample.iter().filter(|row| row.src.len >= src && row.dst.len >= dst);
            pairs.extend(fitting.map(|row| {
                u64::from(row.src.value & super::mask(src)) << 32 | u64::from(row.dst.value & super::mask(dst))
            }));
            if (pairs.len() * 4) < sample.len() {
                continue;
            }
            let fitting = pairs.len() as f64;
            pairs.sort_unstable();
            pairs.dedup();
            let told_apart = (pairs.len() as f64 + 1.0).log2().min((all / 4.0).log2());
            let score = fitting / all * told_apart - (all - fitting) / all * 4.0;
            if score > best {
                (hash, best) = (Hash { bits: Some((src, dst)) }, score);
            }
        }
    }
    hash
}

/// Where `row` goes in a table.
pub(super) fn slots_of<'t>(tree: &'t Tree, cut: Cut, row: &Row, service: u16) -> super::plan::Slots<'t> {
    let (field, first) = (cut.window.field, Field::SrcPortClass as u8);
    if (first..=Field::ProtocolClass as u8).contains(&field) {
        let agreeing = &tree.services.agreeing[usize::from(field - first)][usize::from(service)];
        cut.slots(Prefix::default(), Some(agreeing))
    } else {
        cut.slots(prefix(row, field, tree.hash), None)
    }
}

const _: () = assert!(FIELDS == Field::Hash as usize + 1);
