//! The kernel for small sets.
mod interner;
mod outcome;
mod pairs;
mod service;
mod side;

use crate::trie::row::{BATCH, Batch, Row, Service};
use outcome::{Joiner, Outcomes};
use pairs::PairsBuilder;
use service::ServiceTable;
use side::{Prefixes, SideTable};

pub use outcome::Outcome;

#[derive(Debug)]
pub struct Small {
    pub src_kind: usize,
    pub dst_kind: usize,
    pub src: SideTable,
    pub dst: SideTable,
    pub service: ServiceTable,
    pub dst_classes: u32,
    pub lead_classes: u32,
    pub rest_classes: u32,
    pub lines: Vec<u16>,
    pub tails: Vec<u16>,
    pub cells: Vec<u16>,
    pub outcomes: Outcomes,
    pub info: String,
}

impl Small {
    pub fn build(rows: &[Row], limit_bytes: usize) -> Option<Self> {
        let t = std::time::Instant::now();
        if rows.iter().any(|row| row.vlan.is_some() || row.vni.is_some()) {
            return None;
        }
        let src = Prefixes::new(rows.iter().map(|row| &row.src))?;
        let dst = Prefixes::new(rows.iter().map(|row| &row.dst))?;
        if src.len() * dst.len() * 2 > limit_bytes {
            return None;
        }
        let mut services: Vec<&Service> = rows.iter().map(|row| &row.service).collect();
        services.sort_unstable();
        services.dedup();
        let t1 = t.elapsed();
        let (table, held) = ServiceTable::new(&services)?;
        let t2 = t.elapsed();
        let of_row: Vec<&service::Held> =
            rows.iter().map(|row| &held[services.partition_point(|service| *service < &row.service)]).collect();
        let mut joiner = Joiner::new(rows)?;
        let pairs = PairsBuilder::new(rows, &of_row, &mut joiner, (table.lead_classes, table.rest_classes), limit_bytes).build(&src, &dst)?;
        let t3 = t.elapsed();
        let si = src.intervals(&pairs.src_class);
        let di = dst.intervals(&pairs.dst_class);
        let st = SideTable::new(&si, limit_bytes)?;
        let dt = SideTable::new(&di, limit_bytes)?;
        let t4 = t.elapsed();
        let info = format!(
            "src {}p {}c {}i {}K dst {}p {}c {}i {}K services {} -> {} x {} classes, svc {}K; lines {} tails {}; t1 {}K t2 {}K t3 {}K; times {:?} {:?} {:?} {:?}",
            src.len(), pairs.src_class.iter().max().unwrap() + 1, si.len(), st.memory_bytes() / 1024,
            dst.len(), pairs.dst_classes, di.len(), dt.memory_bytes() / 1024,
            services.len(), table.lead_classes, table.rest_classes, table.memory_bytes() / 1024,
            pairs.tails.len() / table.lead_classes, pairs.outcomes.len() / table.rest_classes,
            pairs.lines.len() / 512, pairs.tails.len() / 512, pairs.outcomes.len() / 512, t1, t2, t3, t4
        );
        Some(Self {
            src_kind: src.kind as usize,
            dst_kind: dst.kind as usize,
            src: st,
            dst: dt,
            dst_classes: pairs.dst_classes as u32,
            lead_classes: table.lead_classes as u32,
            rest_classes: table.rest_classes as u32,
            service: table,
            lines: pairs.lines,
            tails: pairs.tails,
            cells: pairs.outcomes,
            outcomes: joiner.finish(),
            info,
        })
    }

    pub fn memory_bytes(&self) -> usize {
        self.src.memory_bytes() + self.dst.memory_bytes() + self.service.memory_bytes() + self.lines.len() * 2 + self.cells.len() * 2 + self.tails.len() * 2
            + self.outcomes.memory_bytes()
    }

    fn find(&self, batch: &Batch, mut put: impl FnMut(usize, u16)) {
        let len = batch.len.min(BATCH);
        let mut at1 = [0u32; BATCH];
        let (src, dst) = (&batch.src[self.src_kind], &batch.dst[self.dst_kind]);
        let (lead, rest) = self.service.ports(batch);
        for at in 0..len {
            at1[at] = self.src.class(src[at]) * self.dst_classes + self.dst.class(dst[at]);
        }
        for at in 0..len {
            at1[at] = u32::from(self.lines[at1[at] as usize]) * self.lead_classes + self.service.lead(lead[at], batch.protocol[at]);
        }
        for at in 0..len {
            at1[at] = u32::from(self.tails[at1[at] as usize]) * self.rest_classes + self.service.rest(rest[at]);
        }
        for at in 0..len {
            put(at, self.cells[at1[at] as usize]);
        }
    }

    #[inline(never)]
    pub fn lookup(&self, batch: &Batch, found: &mut [u32; BATCH]) {
        self.find(batch, |at, number| found[at] = u32::from(number));
    }

    #[inline(never)]
    pub fn lookup_rows(&self, batch: &Batch, found: &mut [u32; BATCH]) {
        self.find(batch, |at, number| found[at] = self.outcomes.row(number));
    }

    pub fn outcome(&self, number: u32) -> Outcome<'_> {
        self.outcomes.get(number)
    }
}
