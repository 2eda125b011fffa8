//! Protocol and ports → the class of the service, in two parts: a *lead* class, of the protocol and one port, and a
//! *rest* class, of the port with fewer classes. A service holds some of each, in all combinations.

use super::interner::Interner;
use crate::trie::row::{BATCH, Batch, Service};

/// A set of services by position, 64 in a word.
type Bits = Vec<u64>;

#[derive(Debug)]
pub struct ServiceTable {
    lead_is_src: bool,
    lead_port: ValueTable,
    rest_port: ValueTable,
    protocol: ValueTable,
    /// Lead class, by the classes of port and protocol.
    leads: Vec<u16>,
    lead_classes: u32,
}

/// The classes that a service holds.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub leads: Vec<u16>,
    pub rests: Vec<u16>,
}

impl ServiceTable {
    /// The table, and what each service holds. `None` when there are too many classes.
    pub fn new(services: &[&Service]) -> Option<(Self, Vec<Held>)> {
        let src = ValueTable::of_ports(services, |service| service.src_ports.as_slice())?;
        let dst = ValueTable::of_ports(services, |service| service.dst_ports.as_slice())?;
        let lead_is_src = src.1.len() > dst.1.len();
        let ((lead_port, lead_sets), (rest_port, rest_sets)) = if lead_is_src { (src, dst) } else { (dst, src) };
        let (protocol, protocol_sets) = ValueTable::of_protocols(services)?;
        let mut leads = Vec::with_capacity(lead_sets.len() * protocol_sets.len());
        let mut sets = Interner::default();
        let mut both = Bits::new();
        for port in lead_sets.iter() {
            for protocol in protocol_sets.iter() {
                both.clear();
                both.extend(port.iter().zip(protocol).map(|(port, protocol)| port & protocol));
                leads.push(u16::try_from(sets.intern(&both)).ok()?);
            }
        }
        let mut held = vec![Held::default(); services.len()];
        for (class, set) in (0..).zip(sets.iter()) {
            ones(set).for_each(|service| held[service].leads.push(class));
        }
        for (class, set) in (0..).zip(rest_sets.iter()) {
            ones(set).for_each(|service| held[service].rests.push(class));
        }
        let lead_classes = sets.len() as u32;
        Some((Self { lead_is_src, lead_port, rest_port, protocol, leads, lead_classes }, held))
    }

    pub fn lead_classes(&self) -> u32 {
        self.lead_classes
    }

    pub fn rest_classes(&self) -> u32 {
        self.rest_port.classes
    }

    /// The ports that make the lead class, and those that make the rest class.
    #[inline(always)]
    pub fn ports<'a>(&self, batch: &'a Batch) -> (&'a [u16; BATCH], &'a [u16; BATCH]) {
        if self.lead_is_src { (&batch.src_port, &batch.dst_port) } else { (&batch.dst_port, &batch.src_port) }
    }

    /// Whether no value leads out of the tables.
    pub fn is_sound(&self) -> bool {
        [&self.lead_port, &self.rest_port, &self.protocol].iter().all(|table| table.is_sound())
            && self.leads.len() == (self.lead_port.classes * self.protocol.classes) as usize
            && self.leads.iter().all(|lead| u32::from(*lead) < self.lead_classes)
    }

    /// Less than [`ServiceTable::lead_classes`].
    ///
    /// # Safety
    /// [`ServiceTable::is_sound`].
    #[inline(always)]
    pub unsafe fn lead(&self, port: u16, protocol: u16) -> u32 {
        // SAFETY: sound tables give classes below their number of classes, and `leads` has all pairs of these.
        unsafe {
            let row = self.lead_port.class(port) * self.protocol.classes;
            u32::from(*self.leads.get_unchecked((row + self.protocol.class(protocol)) as usize))
        }
    }

    /// Less than [`ServiceTable::rest_classes`].
    ///
    /// # Safety
    /// [`ServiceTable::is_sound`].
    #[inline(always)]
    pub unsafe fn rest(&self, port: u16) -> u32 {
        // SAFETY: the table is sound.
        unsafe { self.rest_port.class(port) }
    }

    pub fn memory_bytes(&self) -> usize {
        let values: usize =
            [&self.lead_port, &self.rest_port, &self.protocol].map(|table| table.class.len()).iter().sum();
        values + size_of_val(&*self.leads)
    }
}

/// A 16-bit value, or those low bits of it that any service asks for, → its class.
#[derive(Debug)]
struct ValueTable {
    mask: u16,
    class: Vec<u8>,
    classes: u32,
}

impl ValueTable {
    /// The table, and for each class the services that hold it. `None` beyond 256 classes.
    fn of_ports<'a>(
        services: &[&'a Service],
        ranges: impl Fn(&'a Service) -> &'a [(u16, u16)],
    ) -> Option<(Self, Interner<u64>)> {
        // Where a service begins to hold, or ceases to.
        let mut turns: Vec<(u32, usize)> = Vec::new();
        for (at, service) in services.iter().enumerate() {
            match ranges(service) {
                [] => turns.push((0, at)),
                some => some.iter().for_each(|(first, last)| {
                    turns.extend([(u32::from(*first), at), (u32::from(*last) + 1, at)]);
                }),
            }
        }
        turns.sort_unstable();
        let mut turns = turns.into_iter().peekable();
        let mut sets = Interner::default();
        let mut class = vec![0; 1 << 16];
        let mut holding: Bits = vec![0; services.len().div_ceil(64)];
        let mut first = 0;
        while first < 1 << 16 {
            while let Some((_, service)) = turns.next_if(|(at, _)| *at == first) {
                holding[service / 64] ^= 1 << (service % 64);
            }
            let end = turns.peek().map_or(1 << 16, |(at, _)| *at);
            class[first as usize..end as usize].fill(u8::try_from(sets.intern(&holding)).ok()?);
            first = end;
        }
        let mask = if sets.len() == 1 { 0 } else { u16::MAX };
        Some((Self::new(mask, class, sets.len()), sets))
    }

    /// The same for protocols.
    fn of_protocols(services: &[&Service]) -> Option<(Self, Interner<u64>)> {
        let condition = |service: &Service| (service.protocol & service.protocol_mask, service.protocol_mask);
        let mut conditions: Vec<(u16, u16)> = services.iter().map(|service| condition(service)).collect();
        conditions.sort_unstable();
        conditions.dedup();
        let words = services.len().div_ceil(64);
        let mut holders: Vec<Bits> = vec![vec![0; words]; conditions.len()];
        for (at, service) in services.iter().enumerate() {
            let holder = conditions.partition_point(|known| *known < condition(service));
            holders[holder][at / 64] |= 1 << (at % 64);
        }
        let bits = conditions.iter().fold(0, |bits, (_, mask)| bits | mask);
        let mask = u16::MAX.checked_shr(bits.leading_zeros()).unwrap_or(0);
        let mut sets = Interner::default();
        let mut class = Vec::with_capacity(usize::from(mask) + 1);
        let mut holding = Bits::new();
        for value in 0..=mask {
            holding.clear();
            holding.resize(words, 0);
            for ((wanted, mask), holder) in conditions.iter().zip(&holders) {
                if value & mask == *wanted {
                    holding.iter_mut().zip(holder).for_each(|(word, holder)| *word |= holder);
                }
            }
            class.push(u8::try_from(sets.intern(&holding)).ok()?);
        }
        Some((Self::new(mask, class, sets.len()), sets))
    }

    fn new(mask: u16, mut class: Vec<u8>, classes: usize) -> Self {
        class.truncate(usize::from(mask) + 1);
        class.shrink_to_fit();
        Self { mask, class, classes: classes as u32 }
    }

    fn is_sound(&self) -> bool {
        self.class.len() > usize::from(self.mask) && self.class.iter().all(|class| u32::from(*class) < self.classes)
    }

    /// Less than `classes`.
    ///
    /// # Safety
    /// [`ValueTable::is_sound`].
    #[inline(always)]
    unsafe fn class(&self, value: u16) -> u32 {
        // SAFETY: there is a class for every value up to the mask.
        u32::from(unsafe { *self.class.get_unchecked(usize::from(value & self.mask)) })
    }
}

/// Positions of the bits that are set.
fn ones(bits: &[u64]) -> impl Iterator<Item = usize> {
    (0..bits.len() * 64).filter(|at| bits[at / 64] >> (at % 64) & 1 == 1)
}
