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

use crate::trie::direct::{ALL_STEPS, Direct};
use crate::trie::engine::Found;
use crate::trie::isa::Isa;
use crate::trie::row::{BATCH, Batch, NO_ROW, Row, Service};
use outcome::{Joiner, Outcomes, unmark};
use pairs::{Pairs, PairsBuilder};
use service::{Held, ServiceTable};
use side::Prefixes;

#[cfg(test)]
pub use outcome::Outcome;

/// Steps of work, of some 20 ns, after which a build is given up.
const WORK: usize = 1 << 21;

#[derive(Debug)]
pub struct Small {
    /// Which kind of value each side looks at, as an index.
    src_kind: usize,
    dst_kind: usize,
    src: Direct,
    dst: Direct,
    service: ServiceTable,
    /// By source prefix and destination prefix.
    lines: Vec<u16>,
    dst_prefixes: u32,
    /// By line and lead class. Outcomes, when there is one rest class.
    tails: Vec<u16>,
    /// By tail and rest class. Nothing, when there is one rest class.
    outcomes: Vec<u16>,
    meanings: Outcomes,
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
        let src_table = src.table(limit_bytes)?;
        let dst_table = dst.table(limit_bytes)?;
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
        };
        (small.memory_bytes() <= limit_bytes && small.is_sound(src.len())).then_some(small)
    }

    #[cfg(test)]
    /// The number of each packet's outcome, for [`Small::outcome`]. Beyond the batch's length nothing is written.
    pub fn lookup(&self, batch: &Batch, isa: Isa, found: &mut [u32; BATCH]) {
        self.find(batch, isa, found, u32::from);
    }

    /// Says the rank of each row, so that lookups give ranks.
    pub fn with_ranks(mut self, ranks: &[u32]) -> Self {
        self.meanings.rank(ranks);
        self
    }

    /// The rank of each packet's row, and which packets, as bits, lie in passive rows before it.
    ///
    /// # Panics
    /// Without [`Small::with_ranks`].
    pub fn search(&self, batch: &Batch, isa: Isa) -> Found {
        let marked = self.meanings.marked();
        assert_eq!(marked.len(), self.meanings.rows().len(), "the rows have no ranks");
        let mut found = Found { ranks: [NO_ROW; BATCH], passed: 0 };
        // SAFETY: every number that is found has a meaning, see `is_sound`, and each of these has a mark.
        self.find(batch, isa, &mut found.ranks, |number| unsafe { *marked.get_unchecked(usize::from(number)) });
        for (at, rank) in found.ranks.iter_mut().enumerate().take(batch.len) {
            let (own, passed) = unmark(*rank);
            *rank = own;
            found.passed |= u32::from(passed) << at;
        }
        found
    }

    #[cfg(test)]
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
        let ends =
            if rests == 1 { below(&self.tails, meanings) } else { below(&self.tails, self.outcomes.len() / rests) };
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
    fn find(&self, batch: &Batch, isa: Isa, found: &mut [u32; BATCH], meaning: impl Fn(u16) -> u32) {
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 {
            // SAFETY: the caller names only instructions that the processor has.
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
        match (self.outcomes.is_empty(), self.src.steps().max(self.dst.steps())) {
            (true, 1) => self.find_in::<false, 1>(batch, found, meaning),
            (false, 1) => self.find_in::<true, 1>(batch, found, meaning),
            (true, _) => self.find_in::<false, ALL_STEPS>(batch, found, meaning),
            (false, _) => self.find_in::<true, ALL_STEPS>(batch, found, meaning),
        }
    }

    /// Step by step for the whole batch, so that the loads of its packets overlap. `RESTS`: there are several rest
    /// classes. `STEPS`: what the sides need, at least.
    ///
    /// PERF: bounds checks would cost a seventh, and prefetching between the steps a fifth.
    #[inline(always)]
    fn find_in<const RESTS: bool, const STEPS: u32>(
        &self,
        batch: &Batch,
        found: &mut [u32; BATCH],
        meaning: impl Fn(u16) -> u32,
    ) {
        let count = batch.len.min(BATCH);
        let (src, dst) = (&batch.src[self.src_kind], &batch.dst[self.dst_kind]);
        let (lead_port, rest_port) = self.service.ports(batch);
        let (leads, rests) = (self.service.lead_classes(), self.service.rest_classes());
        let mut at = [0; BATCH];
        // SAFETY: `is_sound` was true at the end of the build, and nothing changes after. So pairs of prefixes are in
        // `lines`, lines with lead classes in `tails`, tails with rest classes in `outcomes`.
        unsafe {
            let cell = |table: &[u16], at: u32| *table.get_unchecked(at as usize);
            for i in 0..count {
                at[i] = self.src.number::<STEPS>(src[i]) * self.dst_prefixes + self.dst.number::<STEPS>(dst[i]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trie::row::{Key, Kind, Ranges, Side};
    use proptest::prelude::*;
    use std::slice::from_ref;

    const LIMIT: usize = 16 << 20;

    fn row(src: Side, dst: Side, service: Service) -> Row {
        Row { src, dst, service, ..Row::default() }
    }

    fn address(value: u32, len: u8) -> Side {
        Side::new(Kind::Address, value, len)
    }

    fn ports(first: u16, last: u16) -> Ranges {
        Ranges::new([first..=last]).unwrap()
    }

    fn linear(rows: &[Row], key: &Key) -> (u32, Vec<u32>) {
        let holding = |passive| (0..).zip(rows).filter(move |(_, row)| row.passive == passive && row.holds(key));
        let row = holding(false).next().map_or(NO_ROW, |(at, _)| at);
        (row, holding(true).map(|(at, _)| at).filter(|at| *at < row).collect())
    }

    /// All versions of the lookup say the same as a search row by row.
    fn agrees(small: Small, rows: &[Row], keys: &[Key]) {
        let ranks: Vec<u32> = (0..rows.len() as u32).map(|at| at * 3).collect();
        let small = small.with_ranks(&ranks);
        for keys in keys.chunks(BATCH) {
            let mut batch = Batch::default();
            keys.iter().for_each(|key| batch.push(key));
            let (mut portable, mut found) = ([0; BATCH], [0; BATCH]);
            small.lookup(&batch, Isa::Portable, &mut portable);
            small.lookup(&batch, Isa::best(), &mut found);
            assert_eq!(portable, found);
            let searched = small.search(&batch, Isa::best());
            for (at, key) in keys.iter().enumerate() {
                let (row, passive) = linear(rows, key);
                assert_eq!(small.outcome(found[at]), Outcome { row, passive: &passive }, "{key:?}");
                assert_eq!(searched.ranks[at], if row == NO_ROW { NO_ROW } else { row * 3 });
                assert_eq!(searched.passed >> at & 1 == 1, !passive.is_empty());
            }
        }
    }

    /// Packets at the corners of the rows, and just outside.
    fn corners(rows: &[Row]) -> Vec<Key> {
        let ends = |side: &Side| {
            let last = side.value | !crate::trie::row::mask(side.len);
            [side.value, last, side.value.wrapping_sub(1), last.wrapping_add(1)]
        };
        let port_ends = |ranges: &Ranges| match ranges.as_slice() {
            [] => vec![0, u16::MAX],
            some => some.iter().flat_map(|(a, b)| [*a, *b, a.wrapping_sub(1), b.wrapping_add(1)]).collect(),
        };
        let mut keys = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let other = &rows[(at * 7 + 3) % rows.len()];
            let (src_ports, dst_ports) = (port_ends(&row.service.src_ports), port_ends(&other.service.dst_ports));
            for turn in 0..8 {
                let mut key = Key::default();
                key.src[row.src.kind as usize] = ends(&row.src)[turn % 4];
                let dst = if turn < 4 { &row.dst } else { &other.dst };
                key.dst[dst.kind as usize] = ends(dst)[turn / 2 % 4];
                key.protocol = row.service.protocol | (if turn % 3 == 0 { !row.service.protocol_mask } else { 0 });
                key.src_port = src_ports[turn % src_ports.len()];
                key.dst_port = dst_ports[turn % dst_ports.len()];
                keys.push(key);
            }
        }
        keys
    }

    #[test]
    fn first_row_in_order_not_the_narrowest() {
        let web = Service { protocol: 6, protocol_mask: 0xFF, dst_ports: ports(80, 443), ..Service::default() };
        let rows = [
            row(address(0x0A00_0000, 8), address(0x0A01_0000, 16), web.clone()),
            row(address(0x0A00_0001, 32), Side::ANY, web),
            row(Side::ANY, Side::ANY, Service::default()),
        ];
        let small = Small::build(&rows, LIMIT).unwrap();
        let found = |src, dst, dst_port| {
            let mut batch = Batch::default();
            let mut key = Key { protocol: 6, dst_port, ..Key::default() };
            (key.src[0], key.dst[0]) = (src, dst);
            batch.push(&key);
            let mut found = [7; BATCH];
            small.lookup(&batch, Isa::best(), &mut found);
            assert_eq!(found[1], 7);
            small.outcome(found[0]).row
        };
        assert_eq!(found(0x0A00_0001, 0x0A01_FFFF, 80), 0);
        assert_eq!(found(0x0A00_0001, 0x0A02_0000, 443), 1);
        assert_eq!(found(0x0A00_0001, 0x0A02_0000, 444), 2);
        agrees(small, &rows, &corners(&rows));
    }

    #[test]
    fn no_rows_find_none() {
        let small = Small::build(&[], LIMIT).unwrap();
        agrees(small, &[], &[Key::default()]);
    }

    #[test]
    fn passive_rows_up_to_the_first_that_is_not() {
        let passive = |dst| Row { passive: true, ..row(Side::ANY, dst, Service::default()) };
        let rows = [
            passive(address(1 << 16, 16)),
            passive(Side::ANY),
            row(Side::ANY, address(1 << 16, 32), Service::default()),
            passive(address(1 << 16, 24)),
        ];
        let small = Small::build(&rows, LIMIT).unwrap();
        agrees(Small::build(&rows, LIMIT).unwrap(), &rows, &corners(&rows));
        let mut batch = Batch::default();
        for dst in [1 << 16, (1 << 16) + 1, 0] {
            let mut key = Key::default();
            key.dst[0] = dst;
            batch.push(&key);
        }
        let mut found = [0; BATCH];
        small.lookup(&batch, Isa::best(), &mut found);
        let outcomes = [0, 1, 2].map(|at| small.outcome(found[at]));
        assert_eq!(outcomes[0], Outcome { row: 2, passive: &[0, 1] });
        assert_eq!(outcomes[1], Outcome { row: NO_ROW, passive: &[0, 1, 3] });
        assert_eq!(outcomes[2], Outcome { row: NO_ROW, passive: &[1] });
    }

    #[test]
    fn one_kind_a_side() {
        let groups = Side::new(Kind::MacSet, 5 << 20, 12);
        let mut rows =
            vec![row(groups, address(9, 32), Service::default()), row(Side::ANY, groups, Service::default())];
        assert!(Small::build(&rows, LIMIT).is_none());
        rows[1].dst = Side::ANY;
        let small = Small::build(&rows, LIMIT).unwrap();
        agrees(small, &rows, &corners(&rows));
    }

    #[test]
    fn sets_that_do_not_suit() {
        let plain = row(address(9, 32), Side::ANY, Service::default());
        assert!(Small::build(from_ref(&plain), LIMIT).is_some());
        assert!(Small::build(from_ref(&plain), 4096).is_none());
        assert!(Small::build(&[Row { vlan: Some(1), ..plain.clone() }], LIMIT).is_none());
        assert!(Small::build(&[Row { vni: Some(1), ..plain.clone() }], LIMIT).is_none());
        assert!(Small::build(&vec![plain; 1 << 16], LIMIT).is_none());
    }

    /// Passive rows whose ports overlap: each pair of ports is an outcome of its own, with half of the rows.
    #[test]
    fn gives_up_on_too_much_work() {
        let overlapping = |count: u16| {
            let services = (0..count).flat_map(|at| {
                let range = ports(at * 10, 30_000 + at * 10);
                let any = Service::default();
                [Service { src_ports: range.clone(), ..any.clone() }, Service { dst_ports: range, ..any }]
            });
            services.map(|service| Row { passive: true, ..row(Side::ANY, Side::ANY, service) }).collect::<Vec<_>>()
        };
        let few = overlapping(10);
        agrees(Small::build(&few, LIMIT).unwrap(), &few, &corners(&few));
        assert!(Small::build(&overlapping(100), LIMIT).is_none());
    }

    #[test]
    fn gives_up_on_too_many_classes() {
        let rows: Vec<Row> = (0..300)
            .map(|at| row(Side::ANY, Side::ANY, Service { dst_ports: ports(at, at), ..Service::default() }))
            .collect();
        agrees(Small::build(&rows[..200], LIMIT).unwrap(), &rows[..200], &corners(&rows));
        assert!(Small::build(&rows, LIMIT).is_none());
    }

    #[test]
    fn protocols_of_all_sixteen_bits() {
        let rows = [(0x8000, 0x8000), (0x0106, 0x01FF), (0x0100, 0x0100), (6, 0xFF), (0, 0)].map(
            |(protocol, protocol_mask)| {
                row(Side::ANY, Side::ANY, Service { protocol, protocol_mask, ..Service::default() })
            },
        );
        let keys: Vec<Key> = (0..=u16::MAX).map(|protocol| Key { protocol, ..Key::default() }).collect();
        for rows in [&rows[..], &rows[1..], &rows[3..], &rows[4..]] {
            agrees(Small::build(rows, LIMIT).unwrap(), rows, &keys);
        }
    }

    fn side(kind: Kind) -> impl Strategy<Value = Side> {
        let values = prop_oneof![
            Just(0),
            Just(0x0A01_0000),
            Just(0x0A01_FF00),
            (0..4u32, 0..4u32).prop_map(|(high, low)| 0x0A01_0000 + (high << 8) + low),
            any::<u32>()
        ];
        let lens = prop_oneof![Just(0), Just(8), Just(16), Just(24), Just(32), 0..=32u8];
        (values, lens).prop_map(move |(value, len)| Side::new(kind, value, len))
    }

    fn ranges() -> impl Strategy<Value = Ranges> {
        let port = prop_oneof![0..8u16, 65530..=u16::MAX, any::<u16>()];
        let range = (port.clone(), port).prop_map(|(a, b)| a.min(b)..=a.max(b));
        prop_oneof![Just(Ranges::ANY), prop::collection::vec(range, 1..4).prop_map(|list| Ranges::new(list).unwrap())]
    }

    fn service() -> impl Strategy<Value = Service> {
        let protocol = prop_oneof![
            Just((0, 0)),
            Just((6, 0xFF)),
            Just((17, 0xFF)),
            Just((0x0206, 0x02FF)),
            Just((0x0100, 0x0100)),
            any::<(u16, u16)>()
        ];
        (protocol, ranges(), ranges(), any::<bool>()).prop_map(
            |((protocol, protocol_mask), src_ports, dst_ports, src)| {
                let src_ports = if src { src_ports } else { Ranges::ANY };
                Service { protocol, protocol_mask, src_ports, dst_ports }
            },
        )
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let kinds = prop_oneof![Just(Kind::Address), Just(Kind::AddressSet), Just(Kind::VniSet)];
        (kinds.clone(), kinds, any::<bool>()).prop_flat_map(|(src, dst, some_passive)| {
            let parts = (side(src), side(dst), service(), prop::bool::weighted(0.2));
            let rows = parts.prop_map(move |(src, dst, service, passive)| Row {
                passive: passive && some_passive,
                ..row(src, dst, service)
            });
            prop::collection::vec(rows, 1..40)
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_search_row_by_row(rows in rows()) {
            let small = Small::build(&rows, LIMIT).unwrap();
            agrees(small, &rows, &corners(&rows));
        }
    }
}
