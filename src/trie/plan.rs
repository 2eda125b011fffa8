//! How a set of rows is cut into tables and leaves.
//!
//! At each step some candidate windows are priced: cycles that a table costs, divided by the bits of discrimination
//! it brings, if every row is as likely to be hit as any other. Rows that do not fix all bits of a window go into
//! several slots if they leave few bits open, else into the table's rest. For the best candidates the parts are
//! planned in turn, and the cheapest whole wins.

use rustc_hash::FxHashMap;

use super::block::{Field, LANES, WINDOW_LIMIT, Window};
use super::row::{Kind, Row, mask};
use super::services::Services;

/// Most tables and leaves that are open for one packet at once, within one root.
pub(super) const WIDTH_LIMIT: u32 = 16;
/// Sets of more rows are planned with less effort.
const MANY: usize = 20_000;
/// Deepest table.
const DEPTH_LIMIT: usize = 10;

/// Prices in cycles per packet: a table's step, a rest or leaf, a further block, a byte of memory per row.
const STEP: f64 = 4.0;
const VISIT: f64 = 11.0;
const BLOCK: f64 = 5.0;
const BYTE: f64 = 0.02;

/// A window and how many of its bits a row may leave open without going to the rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) window: Window,
    /// Bits for a field of bits; slots for a field of classes.
    pub(super) open: u32,
}

#[derive(Debug)]
pub(super) struct Plan {
    cost: f64,
    bytes: f64,
    pub(super) width: u32,
    pub(super) shape: Shape,
}

#[derive(Debug)]
pub(super) enum Shape {
    Leaf(Vec<u32>),
    /// Slots that are in use, ascending.
    Table {
        cut: Cut,
        slots: Vec<(u32, std::rc::Rc<Plan>)>,
        rest: Option<std::rc::Rc<Plan>>,
    },
}

/// How the hash of a packet's source and destination is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hash {
    /// Leading bits of source and destination; none when hashing does not pay.
    pub(super) bits: Option<(u8, u8)>,
}

impl Hash {
    #[inline(always)]
    pub(super) fn of(src: u32, dst: u32, bits: (u8, u8)) -> u32 {
        let (src, dst) = ((src & mask(bits.0)).rotate_left(15), dst & mask(bits.1));
        let mixed = src.wrapping_mul(0x9e37_79b1) ^ dst.wrapping_mul(0x85eb_ca6b);
        (mixed ^ mixed >> 15).wrapping_mul(0xc2b2_ae35)
    }
}

/// What a row says about a field: its leading bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prefix {
    pub(super) value: u32,
    pub(super) len: u32,
}

/// A row's condition on a field of bits.
pub(super) fn prefix(row: &Row, field: u8, hash: Hash) -> Prefix {
    let side = |side: super::Side, kind: u8| {
        if side.kind as u8 == kind { Prefix { value: side.value, len: u32::from(side.len) } } else { Prefix::default() }
    };
    let exact = |value: Option<u32>| value.map_or(Prefix::default(), |value| Prefix { value, len: 32 });
    const KINDS: u8 = Kind::COUNT as u8;
    match field {
        0..KINDS => side(row.src, field),
        KINDS..10 => side(row.dst, field - KINDS),
        10 => exact(row.vlan.map(u32::from)),
        11 => exact(row.vni),
        _ => match hash.bits {
            Some(bits)
                if row.src.kind == Kind::Address
                    && row.dst.kind == Kind::Address
                    && row.src.len >= bits.0
                    && row.dst.len >= bits.1 =>
            {
                Prefix { value: Hash::of(row.src.value, row.dst.value, bits), len: 32 }
            }
            _ => Prefix::default(),
        },
    }
}

/// Where a row goes in a table.
pub(super) enum Slots<'a> {
    Range(u32, u32),
    Listed(&'a [u16]),
    Rest,
}

impl Cut {
    pub(super) fn slots<'a>(&self, prefix: Prefix, agreeing: Option<&'a [u16]>) -> Slots<'a> {
        let Window { shift, bits, .. } = self.window;
        if let Some(classes) = agreeing {
            let fits = (1..=self.open as usize).contains(&classes.len());
            return if fits { Slots::Listed(classes) } else { Slots::Rest };
        }
        let end = 32 - shift;
        let first = (prefix.value >> shift) & ((1 << bits) - 1);
        if prefix.len >= end {
            Slots::Range(first, first + 1)
        } else if end - prefix.len <= self.open {
            Slots::Range(first, first + (1 << (end - prefix.len)))
        } else {
            Slots::Rest
        }
    }
}

/// Rows as the planner sees them.
pub(super) struct Planner<'a> {
    services: &'a Services,
    /// Fields of bits that some row looks at, with each row's condition.
    fields: Vec<(u8, Vec<Prefix>)>,
    /// Fields of classes worth a look.
    class_fields: Vec<u8>,
    service_of: &'a [u16],
    /// Candidates planned to the end, at the top, below it, and for small parts further down.
    effort: [usize; 3],
    width_limit: u32,
    count: Vec<u32>,
    weight: Vec<f32>,
    /// Plans made below the top, and at the top.
    known: [FxHashMap<Vec<u32>, std::rc::Rc<Plan>>; 2],
}

struct Priced {
    cut: Cut,
    price: f64,
}

fn halvings(rows: f64) -> f64 {
    (rows / LANES as f64).log2().max(0.0)
}

impl<'a> Planner<'a> {
    pub(super) fn new(rows: &[Row], service_of: &'a [u16], services: &'a Services, hash: Hash) -> Self {
        let fields = (0..=Field::Hash as u8)
            .filter(|field| !(Field::SrcPortClass as u8..=Field::ProtocolClass as u8).contains(field))
            .filter(|field| *field != Field::Hash as u8 || hash.bits.is_some())
            .map(|field| (field, rows.iter().map(|row| prefix(row, field, hash)).collect::<Vec<_>>()))
            .filter(|(_, prefixes)| prefixes.iter().any(|prefix| prefix.len > 0))
            .collect();
        let class_fields = (Field::SrcPortClass as u8..=Field::ProtocolClass as u8)
            .filter(|field| {
                let classes = services.dimensions[usize::from(field - Field::SrcPortClass as u8)].seen;
                (3..=1 << WINDOW_LIMIT).contains(&classes)
            })
            .collect();
        Self {
            services,
            fields,
            class_fields,
            service_of,
            effort: if rows.len() > MANY { [2, 2, 1] } else { [3, 2, 1] },
            width_limit: WIDTH_LIMIT,
            count: vec![0; 1 << WINDOW_LIMIT],
            weight: vec![0.0; 1 << WINDOW_LIMIT],
            known: Default::default(),
        }
    }

    pub(super) fn limit_width(&mut self, width: u32) {
        self.width_limit = width;
    }

    fn agreeing(&self, field: u8, row: u32) -> &'a [u16] {
        let dimension = usize::from(field - Field::SrcPortClass as u8);
        &self.services.agreeing[dimension][usize::from(self.service_of[row as usize])]
    }

    /// Plans the rows given, ascending.
    pub(super) fn plan(&mut self, rows: &[u32], depth: usize) -> std::rc::Rc<Plan> {
        let blocks = rows.len().div_ceil(LANES);
        let leaf = Plan {
            cost: VISIT + BLOCK * 0.55 * (blocks.max(1) - 1) as f64,
            bytes: (size_of::<super::block::Block>() * blocks) as f64,
            width: 1,
            shape: Shape::Leaf(rows.to_vec()),
        };
        if blocks <= 1 || depth > DEPTH_LIMIT {
            return leaf.into();
        }
        // At the top a rest becomes a root of its own and adds nothing to the width; such a plan is none for a slot.
        let known = usize::from(depth == 0);
        if let Some(plan) = self.known[known].get(rows) {
            return plan.clone();
        }
        let most = match depth {
            0 => self.effort[0],
            1 => self.effort[1],
            _ if rows.len() <= 256 => self.effort[2],
            _ => 1,
        };
        let price = |plan: &Plan| plan.cost + BYTE * plan.bytes / rows.len() as f64;
        let mut best = leaf;
        for candidate in self.candidates(rows, depth == 0, most) {
            if let Some(plan) = self.table(rows, candidate.cut, depth)
                && price(&plan) < price(&best)
            {
                best = plan;
            }
        }
        let best = std::rc::Rc::new(best);
        self.known[known].insert(rows.to_vec(), best.clone());
        best
    }

    fn table(&mut self, rows: &[u32], cut: Cut, depth: usize) -> Option<Plan> {
        let (slots, rest) = self.split(rows, &cut);
        if rest.len() == rows.len() || slots.iter().any(|slot| slot.len() == rows.len()) {
            return None;
        }
        // A row in several slots is hit in one of them.
        let placed: usize = slots.iter().map(Vec::len).sum();
        let mut copies: FxHashMap<u32, f64> = FxHashMap::default();
        let several = placed > rows.len() - rest.len();
        if several {
            slots.iter().flatten().for_each(|row| *copies.entry(*row).or_default() += 1.0);
        }
        let (mut cost, mut share) = (0.0, 0.0);
        let (mut bytes, mut width) = ((slots.len() * 8) as f64, 1);
        let mut children = Vec::new();
        for (number, slot) in slots.iter().enumerate().filter(|(_, slot)| !slot.is_empty()) {
            let plan = self.plan(slot, depth + 1);
            let part = if several { slot.iter().map(|row| 1.0 / copies[row]).sum::<f64>() } else { slot.len() as f64 };
            share += part;
            cost += part * plan.cost;
            bytes += plan.bytes;
            width = width.max(plan.width);
            children.push((number as u32, plan));
        }
        cost = STEP + cost / share;
        let rest = (!rest.is_empty()).then(|| self.plan(&rest, if depth == 0 { 0 } else { depth + 1 }));
        if let Some(rest) = &rest {
            cost += rest.cost + 1.0;
            bytes += rest.bytes;
            // The rest of the topmost table becomes a root of its own.
            width = if depth == 0 { width.max(rest.width) } else { width + rest.width };
        }
        if width > self.width_limit {
            return None;
        }
        Some(Plan { cost, bytes, width, shape: Shape::Table { cut, slots: children, rest } })
    }

    fn split(&self, rows: &[u32], cut: &Cut) -> (Vec<Vec<u32>>, Vec<u32>) {
        let mut slots = vec![Vec::new(); 1 << cut.window.bits];
        let mut rest = Vec::new();
        let field = cut.window.field;
        let prefixes = self.fields.iter().find(|(number, _)| *number == field).map(|(_, prefixes)| prefixes);
        for row in rows {
            let prefix = prefixes.map_or(Prefix::default(), |prefixes| prefixes[*row as usize]);
            let agreeing = prefixes.is_none().then(|| self.agreeing(field, *row));
            match cut.slots(prefix, agreeing) {
                Slots::Range(first, end) => (first..end).for_each(|slot| slots[slot as usize].push(*row)),
                Slots::Listed(classes) => classes.iter().for_each(|slot| slots[usize::from(*slot)].push(*row)),
                Slots::Rest => rest.push(*row),
            }
        }
        (slots, rest)
    }

    /// The most promising windows, best first.
    fn candidates(&mut self, rows: &[u32], top: bool, most: usize) -> Vec<Priced> {
        let step = (rows.len() / if top { 2048 } else { 512 }).max(1);
        let sample: Vec<u32> = rows.iter().step_by(step).copied().collect();
        let scale = rows.len() as f64 / sample.len() as f64;
        let needed = (rows.len() as f64 / 2.0).log2().ceil().max(1.0) as u32;
        let widest = needed.min(if top { WINDOW_LIMIT } else { 10 });
        let widths: Vec<u32> =
            [0, 2, 4, 6].iter().filter_map(|less| widest.checked_sub(*less)).filter(|w| *w > 0).collect();
        let small = rows.len() <= 128;
        let widths = &widths[..widths.len().min(if small { 2 } else { 4 })];
        let mut priced = Vec::new();
        for at in 0..self.fields.len() {
            let field = self.fields[at].0;
            if field == Field::Hash as u8 {
                for bits in widths {
                    let window = Window { field, shift: 32 - bits, bits: *bits };
                    priced.extend(self.price(&sample, scale, at, Cut { window, open: 0 }));
                }
                continue;
            }
            let promise = Promise::of(&self.fields[at].1, &sample);
            for bits in widths {
                for shift in promise.best_shifts(*bits, if small { 2 } else { 4 }) {
                    let opens: &[u32] = if small { &[0, 2] } else { &[0, 2, 4] };
                    for open in opens.iter().filter(|open| **open <= *bits) {
                        let window = Window { field, shift, bits: *bits };
                        priced.extend(self.price(&sample, scale, at, Cut { window, open: *open }));
                    }
                }
            }
        }
        for field in self.class_fields.clone() {
            let dimension = &self.services.dimensions[usize::from(field - Field::SrcPortClass as u8)];
            let bits = usize::BITS - (dimension.seen - 1).leading_zeros();
            for open in [1, 4, 16] {
                let cut = Cut { window: Window { field, shift: 0, bits }, open };
                priced.extend(self.price(&sample, scale, usize::MAX, cut));
            }
        }
        priced.sort_by(|a, b| a.price.total_cmp(&b.price));
        let mut kept: Vec<Priced> = Vec::new();
        for candidate in priced {
            let alike = |other: &Priced| {
                other.cut.window.field == candidate.cut.window.field
                    && other.cut.window.bits == candidate.cut.window.bits
            };
            if kept.len() < most && !kept.iter().any(alike) {
                kept.push(candidate);
            }
        }
        kept
    }

    /// Cycles for each bit of discrimination, or nothing when a leaf is better.
    fn price(&mut self, sample: &[u32], scale: f64, at: usize, cut: Cut) -> Option<Priced> {
        let mut touched: Vec<u32> = Vec::with_capacity(sample.len());
        let (mut rest, mut placed) = (0usize, 0usize);
        let (mut count, mut weight) = (std::mem::take(&mut self.count), std::mem::take(&mut self.weight));
        let mut place = |slot: u32, part: f32| {
            if count[slot as usize] == 0 {
                touched.push(slot);
            }
            count[slot as usize] += 1;
            weight[slot as usize] += part;
            placed += 1;
        };
        let prefixes = self.fields.get(at).map(|(_, prefixes)| prefixes);
        for row in sample {
            let prefix = prefixes.map_or(Prefix::default(), |prefixes| prefixes[*row as usize]);
            let agreeing = prefixes.is_none().then(|| self.agreeing(cut.window.field, *row));
            match cut.slots(prefix, agreeing) {
                Slots::Range(first, end) => (first..end).for_each(|slot| place(slot, 1.0 / (end - first) as f32)),
                Slots::Listed(classes) => {
                    classes.iter().for_each(|slot| place(u32::from(*slot), 1.0 / classes.len() as f32));
                }
                Slots::Rest => rest += 1,
            }
        }
        let rows = sample.len() as f64 * scale;
        let in_rest = rest as f64 * scale;
        let rest_halvings = if rest > 0 { halvings(in_rest) } else { 0.0 };
        let (mut share, mut left, mut blocks) = (0.0, 0.0, 0.0);
        for slot in touched {
            let here = f64::from(std::mem::take(&mut count[slot as usize]));
            let here = if here <= 1.0 { 1.0 } else { here * scale };
            let part = f64::from(std::mem::take(&mut weight[slot as usize]));
            share += part;
            left += part * (halvings(here) + 0.7 * rest_halvings).min(halvings(here + in_rest) + 1.0);
            blocks += part * ((here / LANES as f64).ceil() + (in_rest / LANES as f64).ceil());
        }
        (self.count, self.weight) = (count, weight);
        if placed == 0 {
            return None;
        }
        let memory = (f64::from(1 << cut.window.bits) * 8.0 + placed as f64 * scale * LANES as f64) / rows;
        let cycles = STEP + if rest > 0 { VISIT } else { 0.0 } + BYTE * memory;
        let bits = halvings(rows) - left / share;
        let saved = ((rows / LANES as f64).ceil() - blocks / share) * BLOCK * 0.6;
        (bits > 0.05 && saved > cycles * 0.7).then(|| Priced { cut, price: cycles / bits })
    }
}

/// What the bits of a field promise, each for itself.
struct Promise {
    /// By bit, from the first: entropy among the rows that fix it.
    entropy: [f64; 32],
    /// By length: rows that fix at least so many bits.
    fixing: [f64; 34],
}

impl Promise {
    fn of(prefixes: &[Prefix], sample: &[u32]) -> Self {
        let (mut ones, mut lens) = ([0u32; 32], [0u32; 34]);
        for row in sample {
            let Prefix { value, len } = prefixes[*row as usize];
            lens[len as usize] += 1;
            let mut bits = value;
            while bits != 0 {
                let bit = bits.leading_zeros();
                ones[bit as usize] += 1;
                bits &= !(1 << (31 - bit));
            }
        }
        let mut fixing = [0.0; 34];
        for len in (0..33).rev() {
            fixing[len] = fixing[len + 1] + f64::from(lens[len]);
        }
        let entropy = std::array::from_fn(|bit| {
            let (one, all) = (f64::from(ones[bit]), fixing[bit + 1]);
            if one == 0.0 || one >= all {
                return 0.0;
            }
            let (p, q) = (one / all, 1.0 - one / all);
            -p * p.log2() - q * q.log2()
        });
        Self { entropy, fixing }
    }

    /// Windows of so many bits that look best, by shift.
    fn best_shifts(&self, bits: u32, most: usize) -> Vec<u32> {
        let bits = bits as usize;
        let mut scored: Vec<(f64, u32)> = (0..=32 - bits)
            .map(|start| {
                let end = start + bits;
                let promised: f64 = self.entropy[start..end].iter().sum();
                // Rows that leave two bits open are half as good.
                let fit = 0.5 * (self.fixing[end] + self.fixing[end.saturating_sub(2)]);
                (promised * fit, 32 - end as u32)
            })
            .filter(|(score, _)| *score > 0.0)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().take(most).map(|(_, shift)| shift).collect()
    }
}
