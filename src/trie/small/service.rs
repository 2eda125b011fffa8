//! Protocol and ports → the class of the service. Two packets are in one class when the same services hold them.

use super::interner::Interner;
use crate::trie::row::{BATCH, Batch, Service};

/// A set of services by position, 64 in a word.
type Bits = Vec<u64>;

/// The port with fewer classes is left for the end of the lookup: the other one and the protocol make the *lead*
/// class, this one makes the *rest* class. A service holds some of each, in all combinations.
#[derive(Debug)]
pub struct ServiceTable {
    lead_is_src: bool,
    lead_port: ValueTable,
    rest_port: ValueTable,
    protocol: ValueTable,
    /// Lead class by the classes of port and protocol.
    leads: Vec<u16>,
    protocols: u32,
    pub lead_classes: usize,
    pub rest_classes: usize,
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
        let ports = |bounds: Vec<(u32, usize)>| ValueTable::of_ranges(bounds, services.len());
        let src = ports(bounds(services, |service| service.src_ports.as_slice()))?;
        let dst = ports(bounds(services, |service| service.dst_ports.as_slice()))?;
        let lead_is_src = (src.1.len() > dst.1.len()) ^ (src.1.len() > 1 && dst.1.len() > 1 && std::env::var("SWAP").is_ok());
        let ((lead_port, lead_sets), (rest_port, rest_sets)) = if lead_is_src { (src, dst) } else { (dst, src) };
        let (protocol, protocol_sets) = ValueTable::of_protocols(services)?;
        let mut leads = Vec::with_capacity(lead_sets.len() * protocol_sets.len());
        let mut sets = Interner::new();
        let mut both = Bits::new();
        for port in lead_sets.iter() {
            for protocol in protocol_sets.iter() {
                both.clear();
                both.extend(port.iter().zip(protocol).map(|(port, protocol)| port & protocol));
                leads.push(u16::try_from(sets.intern(&both)).ok()?);
            }
        }
        let mut held = vec![Held::default(); services.len()];
        for (class, set) in sets.iter().enumerate() {
            ones(set).for_each(|service| held[service].leads.push(class as u16));
        }
        for (class, set) in rest_sets.iter().enumerate() {
            ones(set).for_each(|service| held[service].rests.push(class as u16));
        }
        let protocols = protocol_sets.len() as u32;
        let (lead_classes, rest_classes) = (sets.len(), rest_sets.len());
        Some((Self { lead_is_src, lead_port, rest_port, protocol, leads, protocols, lead_classes, rest_classes }, held))
    }

    /// The ports of the batch that make the lead class, and those that make the rest class.
    #[inline(always)]
    pub fn ports<'a>(&self, batch: &'a Batch) -> (&'a [u16; BATCH], &'a [u16; BATCH]) {
        if self.lead_is_src { (&batch.src_port, &batch.dst_port) } else { (&batch.dst_port, &batch.src_port) }
    }

    #[inline(always)]
    pub fn lead(&self, port: u16, protocol: u16) -> u32 {
        let port = u32::from(self.lead_port.class(port)) * self.protocols;
        u32::from(self.leads[(port + u32::from(self.protocol.class(protocol))) as usize])
    }

    #[inline(always)]
    pub fn rest(&self, port: u16) -> u32 {
        u32::from(self.rest_port.class(port))
    }

    pub fn memory_bytes(&self) -> usize {
        3 * size_of::<[u8; 1 << 16]>() + size_of_val(&*self.leads)
    }
}

/// Where ranges begin and where they are over, each with the position of its service.
fn bounds<'a>(services: &[&'a Service], ranges: impl Fn(&'a Service) -> &'a [(u16, u16)]) -> Vec<(u32, usize)> {
    let mut bounds = Vec::new();
    for (at, service) in services.iter().enumerate() {
        match ranges(service) {
            [] => bounds.push((0, at)),
            some => bounds.extend(
                some.iter().flat_map(|(first, last)| [(u32::from(*first), at), (u32::from(*last) + 1, at)]),
            ),
        }
    }
    bounds.sort_unstable();
    bounds
}

/// A 16-bit value, or those bits of it that any service asks for, → its class.
#[derive(Debug)]
struct ValueTable {
    mask: u16,
    class: Box<[u8; 1 << 16]>,
}

impl ValueTable {
    /// The table, and for each class the services that hold it. `None` beyond 256 classes.
    fn of_ranges(bounds: Vec<(u32, usize)>, services: usize) -> Option<(Self, Interner<u64>)> {
        let mut sets = Interner::new();
        let mut class = Box::new([0; 1 << 16]);
        let mut open: Bits = vec![0; services.div_ceil(64)];
        let mut bounds = bounds.into_iter().peekable();
        let mut first = 0;
        while first < 1 << 16 {
            while let Some((_, service)) = bounds.next_if(|(at, _)| *at <= first) {
                open[service / 64] ^= 1 << (service % 64);
            }
            let end = bounds.peek().map_or(1 << 16, |(at, _)| *at);
            class[first as usize..end as usize].fill(u8::try_from(sets.intern(&open)).ok()?);
            first = end;
        }
        let mask = if sets.len() == 1 { 0 } else { u16::MAX };
        Some((Self { mask, class }, sets))
    }

    fn of_protocols(services: &[&Service]) -> Option<(Self, Interner<u64>)> {
        let condition = |service: &Service| (service.protocol & service.protocol_mask, service.protocol_mask);
        let mut conditions: Vec<(u16, u16)> = services.iter().map(|service| condition(service)).collect();
        conditions.sort_unstable();
        conditions.dedup();
        let mask = conditions.iter().fold(0, |mask, condition| mask | condition.1);
        let mask = (u32::from(mask) + 1).next_power_of_two() - 1;
        let mut holders = vec![vec![0; services.len().div_ceil(64)]; conditions.len()];
        for (at, service) in services.iter().enumerate() {
            let holder = conditions.partition_point(|known| *known < condition(service));
            holders[holder][at / 64] |= 1 << (at % 64);
        }
        let mut sets = Interner::new();
        let mut class = Box::new([0; 1 << 16]);
        let mut holding: Bits = Vec::new();
        for value in 0..=mask {
            holding.clear();
            holding.resize(services.len().div_ceil(64), 0);
            for ((wanted, bits), holder) in conditions.iter().zip(&holders) {
                if value as u16 & bits == *wanted {
                    holding.iter_mut().zip(holder).for_each(|(word, holder)| *word |= holder);
                }
            }
            class[value as usize] = u8::try_from(sets.intern(&holding)).ok()?;
        }
        Some((Self { mask: mask as u16, class }, sets))
    }

    #[inline(always)]
    fn class(&self, value: u16) -> u8 {
        self.class[usize::from(value & self.mask)]
    }
}

fn ones(bits: &[u64]) -> impl Iterator<Item = usize> {
    bits.iter().enumerate().flat_map(|(at, word)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit))
}
