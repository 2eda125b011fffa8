//! The kernel for small sets: up to a few thousand rows, a few bytes to read for each packet.
//!
//! Every value is first replaced by its class among the rows; tables of all combinations of classes do the rest
//! (recursive flow classification, Gupta and McKeown, SIGCOMM 1999). Combinations that no row can tell apart share
//! their storage.
//! ```text
//! source address ──────► prefix ─┐
//!                                ├► line ─┐
//! destination address ─► prefix ─┘        ├► tail ─┐
//! port, protocol ──────► lead class ──────┘        ├► outcome ─► row, passive rows
//! other port ──────────► rest class ───────────────┘
//! ```
//! Most sets ask for nothing of the source port; then there is one rest class, and lines lead to outcomes at once.
//! Built in one piece and never changed. No allocation, no branch on a packet's values.
mod interner;
mod outcome;
mod pairs;
mod service;
mod side;

use crate::trie::row::{BATCH, Batch, Row, Service};
use outcome::{Joiner, Outcomes};
use pairs::{Pairs, PairsBuilder};
use service::{Held, ServiceTable};
use side::{Prefixes, SideTable};

pub use outcome::Outcome;

/// Steps of work, of some 20 ns, after which a build is given up.
const WORK: usize = 1 << 21;

#[derive(Debug)]
pub struct Small {
    /// Which kind of value each side looks at, as an index.
    src_kind: usize,
    dst_kind: usize,
    src: SideTable,
    dst: SideTable,
    service: ServiceTable,
    /// By source prefix and destination prefix.
    lines: Vec<u16>,
    dst_prefixes: u32,
    /// By line and lead class. Outcomes, when there is one rest class.
    tails: Vec<u16>,
    /// By tail and rest class. Nothing, when there is one rest class.
    outcomes: Vec<u16>,
    meanings: Outcomes,
    /// Whether the processor has what [`Small::find_avx2`] asks for.
    avx2: bool,
}

impl Small {
    /// `None` when the set does not suit: rows that ask for VLAN or VNI, a side of several kinds, more than
    /// `limit_bytes` of tables, too many classes, too much work.
    pub fn build(rows: &[Row], limit_bytes: usize) -> Option<Self> {
        let joiner = Joiner::new(rows.len(), WORK)?;
        if rows.iter().any(|row| row.vlan.is_some() || row.vni.is_some()) {
            return None;
        }
        let src = Prefixes::new(rows.iter().map(|row| &row.src))?;
        let dst = Prefixes::new(rows.iter().map(|row| &row.dst))?;
        if src.len() * dst.len() * size_of::<u16>() > limit_bytes {
            return None;
        }
        let src_table = SideTable::new(&src, limit_bytes)?;
        let dst_table = SideTable::new(&dst, limit_bytes)?;
        let mut services: Vec<&Service> = rows.iter().map(|row| &row.service).collect();
        services.sort_unstable();
        services.dedup();
        let (service, held) = ServiceTable::new(&services)?;
        let position = |row: &Row| services.partition_point(|known| **known < row.service);
        let held: Vec<&Held> = rows.iter().map(|row| &held[position(row)]).collect();
        let classes = (service.lead_classes() as usize, service.rest_classes() as usize);
        let pairs = PairsBuilder::new(rows, &held, joiner, classes, limit_bytes).build(&src, &dst)?;
        let Pairs { lines, mut tails, mut outcomes, meanings } = pairs;
        if service.rest_classes() == 1 {
            tails.iter_mut().for_each(|tail| *tail = outcomes[usize::from(*tail)]);
            outcomes = Vec::new();
        }
        let small = Self {
            src_kind: src.kind as usize,
            dst_kind: dst.kind as usize,
            src: src_table,
            dst: dst_table,
            service,
            lines,
            dst_prefixes: dst.len() as u32,
            tails,
            outcomes,
            meanings,
            avx2: has_avx2(),
        };
        (small.memory_bytes() <= limit_bytes && small.is_sound(src.len())).then_some(small)
    }

    /// The number of each packet's outcome, for [`Small::outcome`].
    pub fn lookup(&self, batch: &Batch, found: &mut [u32; BATCH]) {
        self.find(batch, found, u32::from);
    }

    /// The row of each packet's outcome.
    pub fn lookup_rows(&self, batch: &Batch, found: &mut [u32; BATCH]) {
        let rows = self.meanings.rows();
        // SAFETY: every number that is found has a meaning, see `is_sound`.
        self.find(batch, found, |number| unsafe { *rows.get_unchecked(usize::from(number)) });
    }

    /// What a number found by [`Small::lookup`] means.
    ///
    /// # Panics
    /// When the number was not found in this kernel.
    pub fn outcome(&self, number: u32) -> Outcome<'_> {
        self.meanings.get(number)
    }

    pub fn memory_bytes(&self) -> usize {
        let tables = [&self.lines, &self.tails, &self.outcomes].map(|table| size_of_val(table.as_slice()));
        let tables: usize = tables.iter().sum();
        let sides = self.src.memory_bytes() + self.dst.memory_bytes();
        tables + sides + self.service.memory_bytes() + self.meanings.memory_bytes()
    }

    /// Whether each table has a cell for all that the ones before it lead to. The lookup relies on it.
    fn is_sound(&self, src_prefixes: usize) -> bool {
        let below = |table: &[u16], end: usize| table.iter().all(|cell| usize::from(*cell) < end);
        let (leads, rests) = (self.service.lead_classes() as usize, self.service.rest_classes() as usize);
        let meanings = self.meanings.rows().len();
        let ends = if rests == 1 { below(&self.tails, meanings) } else { below(&self.tails, self.outcomes.len() / rests) };
        let kinds = Batch::default().src.len();
        self.src_kind < kinds
            && self.dst_kind < kinds
            && self.src.is_sound()
            && self.dst.is_sound()
            && self.service.is_sound()
            && self.lines.len() == src_prefixes * self.dst_prefixes as usize
            && below(&self.lines, self.tails.len() / leads)
            && ends
            && below(&self.outcomes, meanings)
    }

    #[inline(always)]
    fn find(&self, batch: &Batch, found: &mut [u32; BATCH], meaning: impl Fn(u16) -> u32) {
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            // SAFETY: the processor has these instructions.
            return unsafe { self.find_avx2(batch, found, meaning) };
        }
        self.find_portable(batch, found, meaning);
    }

    /// PERF: a fifth faster than the same for any x86-64, by shorter shifts and masks.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn find_avx2(&self, batch: &Batch, found: &mut [u32; BATCH], meaning: impl Fn(u16) -> u32) {
        self.find_portable(batch, found, meaning);
    }

    #[inline(always)]
    fn find_portable(&self, batch: &Batch, found: &mut [u32; BATCH], meaning: impl Fn(u16) -> u32) {
        if self.outcomes.is_empty() {
            self.find_in::<false>(batch, found, meaning);
        } else {
            self.find_in::<true>(batch, found, meaning);
        }
    }

    /// Step by step for the whole batch, so that the packets' loads overlap. `RESTS`: there are several rest classes.
    #[inline(always)]
    fn find_in<const RESTS: bool>(&self, batch: &Batch, found: &mut [u32; BATCH], meaning: impl Fn(u16) -> u32) {
        let count = batch.len.min(BATCH);
        let (src, dst) = (&batch.src[self.src_kind], &batch.dst[self.dst_kind]);
        let (lead_port, rest_port) = self.service.ports(batch);
        let (leads, rests) = (self.service.lead_classes(), self.service.rest_classes());
        let mut at = [0; BATCH];
        // SAFETY: `is_sound` was seen at the end of the build, and nothing has changed since. So prefixes are in `lines`,
        // lines and lead classes in `tails`, tails and rest classes in `outcomes`.
        unsafe {
            let cell = |table: &[u16], at: u32| *table.get_unchecked(at as usize);
            for i in 0..count {
                at[i] = self.src.prefix(src[i]) * self.dst_prefixes + self.dst.prefix(dst[i]);
            }
            for i in 0..count {
                let lead = self.service.lead(lead_port[i], batch.protocol[i]);
                at[i] = u32::from(cell(&self.lines, at[i])) * leads + lead;
            }
            if RESTS {
                for i in 0..count {
                    at[i] = u32::from(cell(&self.tails, at[i])) * rests + self.service.rest(rest_port[i]);
                }
            }
            let last = if RESTS { &self.outcomes } else { &self.tails };
            for i in 0..count {
                found[i] = meaning(cell(last, at[i]));
            }
        }
    }
}

fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}
