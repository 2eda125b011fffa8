//! Conditions on protocol and ports, as bits.
//!
//! Every distinct [`Service`] of a set of rows has a number. A packet's two ports and its protocol each belong to a
//! class of values that no service tells apart; each class has a set of services that agree with it. The
//! intersection of the three sets says which services the packet satisfies:
//!
//! ```text
//!   source port ──► class ──► set of services ─┐
//!   dest. port ───► class ──► set of services ─┤ AND ─► one bit for each service
//!   protocol ─────► class ──► set of services ─┘
//! ```
//! With more than 511 services there are no sets: blocks have the ranges of their rows. Tables see classes too, then
//! as at most [`SEEN_LIMIT`] stretches of ports, cut where most ranges begin or end.

use rustc_hash::FxHashMap;

use super::block::SERVICE_BITS;
use super::row::{Ranges, Service};

/// A set of services.
pub(super) type ServiceSet = [u64; SERVICE_BITS / 64];

/// Classes that tables tell apart where there are too many services for sets.
const SEEN_LIMIT: usize = 1 << 10;
/// All values.
const PORTS: usize = 1 << 16;
/// Most classes that a service is listed with: one that agrees with more goes to a table's rest.
pub(super) const AGREEING_LIMIT: usize = 16;

/// 16-bit value → class, in two steps so that equal stretches are stored once.
#[derive(Clone, Debug)]
pub(super) struct ClassMap {
    /// Below the number of chunks.
    top: Box<[u16; 256]>,
    chunks: Vec<[Class; 256]>,
}

/// A class of values, and what a table's window sees of it: a class made after the tables is seen as the class it was
/// split from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Class {
    pub(super) number: u16,
    pub(super) seen: u16,
}

/// Stretches of values of one class: the first value of each, ascending from 0.
type Runs = Vec<(u16, Class)>;

impl ClassMap {
    /// `runs` say the classes of the first `period` values, a power of two from 256; the others repeat them.
    fn new(runs: &Runs, period: usize) -> Self {
        let mut map = Self { top: Box::new([0; 256]), chunks: Vec::new() };
        let mut uniform: FxHashMap<Class, u16> = FxHashMap::default();
        let mut at = 0;
        let (own, repeated) = map.top.split_at_mut(period / 256);
        for (high, top) in (0u16..).zip(own.iter_mut()) {
            let (first, last) = (high << 8, high << 8 | 0xff);
            while runs.get(at + 1).is_some_and(|(next, _)| *next <= first) {
                at += 1;
            }
            let number = map.chunks.len() as u16;
            if runs.get(at + 1).is_none_or(|(next, _)| *next > last) {
                *top = *uniform.entry(runs[at].1).or_insert(number);
                if *top == number {
                    map.chunks.push([runs[at].1; 256]);
                }
                continue;
            }
            let mut chunk = [Class::default(); 256];
            let mut within = at;
            for (low, class) in (0u16..).zip(chunk.iter_mut()) {
                while runs.get(within + 1).is_some_and(|(next, _)| *next <= first | low) {
                    within += 1;
                }
                *class = runs[within].1;
            }
            *top = number;
            map.chunks.push(chunk);
        }
        repeated.iter_mut().zip(own.iter().cycle()).for_each(|(top, own)| *top = *own);
        map
    }

    #[inline(always)]
    pub(super) fn get(&self, value: u16) -> Class {
        let chunk = usize::from(self.top[usize::from(value >> 8)]);
        debug_assert!(chunk < self.chunks.len());
        // SAFETY: `new` puts only numbers of chunks into `top`.
        unsafe { self.chunks.get_unchecked(chunk)[usize::from(value & 0xff)] }
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.top) + size_of_val(&*self.chunks)
    }
}

/// One of the three dimensions: source port, destination port, protocol.
#[derive(Clone, Debug)]
pub(super) struct Dimension {
    pub(super) classes: ClassMap,
    /// Classes that tables see.
    pub(super) seen: usize,
    /// By class number; empty when there are more services than a set can hold.
    pub(super) sets: Vec<Aligned>,
    runs: Runs,
    /// See [`ClassMap::new`].
    period: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(64))]
pub(super) struct Aligned(pub(super) ServiceSet);

/// All services of a set of rows.
#[derive(Clone, Debug)]
pub(super) struct Services {
    /// By service number; number 0 is none.
    pub(super) list: Vec<Service>,
    numbers: FxHashMap<Service, u16>,
    /// Source port, destination port, protocol.
    pub(super) dimensions: [Dimension; 3],
    /// By dimension and service: the classes, as a window sees them, that agree with it; not all of them if there are
    /// more than [`AGREEING_LIMIT`].
    pub(super) agreeing: [Vec<Vec<u16>>; 3],
    pub(super) wide: bool,
}

/// More services than numbers, or one that looks at what none did before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyServices;

impl Services {
    pub(super) fn build<'a>(services: impl Iterator<Item = &'a Service>) -> Result<Self, TooManyServices> {
        let mut list = vec![Service::default()];
        let mut numbers: FxHashMap<Service, u16> = FxHashMap::default();
        for service in services {
            if !numbers.contains_key(service) {
                let number = u16::try_from(list.len()).map_err(|_| TooManyServices)?;
                numbers.insert(service.clone(), number);
                list.push(service.clone());
            }
        }
        let wide = list.len() > SERVICE_BITS;
        let (src, dst): (PortsOf, PortsOf) = (|service| &service.src_ports, |service| &service.dst_ports);
        let dimensions = if wide {
            [wide_ports(&list, src), wide_ports(&list, dst), protocols(&list, wide)]
        } else {
            [narrow_ports(&list, src), narrow_ports(&list, dst), protocols(&list, wide)]
        };
        let mut services = Self { list, numbers, dimensions, agreeing: Default::default(), wide };
        for at in 0..3 {
            services.agreeing[at] = services.list.iter().map(|service| services.agrees(at, service)).collect();
        }
        Ok(services)
    }

    /// The classes, as a window sees them, that agree with condition `at` of a service.
    fn agrees(&self, at: usize, service: &Service) -> Vec<u16> {
        let dimension = &self.dimensions[at];
        let mut seen: Vec<u16> = Vec::new();
        let mut see = |class: Class| {
            if !seen.contains(&class.seen) {
                seen.push(class.seen);
            }
            seen.len() <= AGREEING_LIMIT
        };
        match at {
            2 => {
                let agreeing = dimension.runs.iter().filter(|(value, _)| agrees_protocol(service, *value));
                agreeing.map(|(_, class)| *class).take_while(|class| see(*class)).for_each(drop);
            }
            _ => {
                let ranges = if at == 0 { &service.src_ports } else { &service.dst_ports };
                let whole = [(0, u16::MAX)];
                let ranges = if ranges.is_any() { &whole[..] } else { ranges.as_slice() };
                for (first, last) in ranges {
                    let from = dimension.runs.partition_point(|(value, _)| value <= first).saturating_sub(1);
                    let within = dimension.runs[from..].iter().take_while(|(value, _)| value <= last);
                    within.map(|(_, class)| *class).take_while(|class| see(*class)).for_each(drop);
                }
            }
        }
        seen.sort_unstable();
        seen
    }

    /// Places that a block takes in its arena.
    pub(super) fn places(&self) -> usize {
        if self.wide { 2 } else { 1 }
    }

    /// Whether a block cannot tell all of the conditions.
    pub(super) fn is_more(&self, number: u16) -> bool {
        let service = &self.list[usize::from(number)];
        self.wide && (service.src_ports.as_slice().len() > 1 || service.dst_ports.as_slice().len() > 1)
    }

    pub(super) fn number(&self, service: &Service) -> Option<u16> {
        self.numbers.get(service).copied()
    }

    /// With one service more. Classes that it splits are seen by existing tables as they were.
    pub(super) fn with(&self, service: &Service) -> Result<Self, TooManyServices> {
        let number = u16::try_from(self.list.len()).map_err(|_| TooManyServices)?;
        if !self.wide && usize::from(number) >= SERVICE_BITS {
            return Err(TooManyServices);
        }
        // A bit that no service looked at is not in the classes; and classes need numbers.
        let known = self.list.iter().skip(1).fold(0, |mask, service| mask | service.protocol_mask);
        let full = self.dimensions.iter().any(|dimension| dimension.sets.len() > usize::from(u16::MAX) / 2);
        if full || service.protocol_mask & !known != 0 {
            return Err(TooManyServices);
        }
        let mut next = self.clone();
        next.list.push(service.clone());
        next.numbers.insert(service.clone(), number);
        if !next.wide {
            let [src, dst, protocol] = &mut next.dimensions;
            src.split(number, edges(&service.src_ports), |port| service.src_ports.hold(port));
            dst.split(number, edges(&service.dst_ports), |port| service.dst_ports.hold(port));
            let alike = |old: &&Service| (old.protocol, old.protocol_mask) == (service.protocol, service.protocol_mask);
            let listed = self.list.iter().skip(1).any(|old| alike(&old));
            let end = if listed { 1 } else { (protocol.period - 1) as u16 };
            protocol.split(number, 1..=end, |value| agrees_protocol(service, value));
        }
        for at in 0..3 {
            let agreeing = next.agrees(at, service);
            next.agreeing[at].push(agreeing);
        }
        Ok(next)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let dimensions = self.dimensions.iter();
        let dimensions: usize = dimensions.map(|d| d.classes.memory_bytes() + size_of_val(&*d.sets)).sum();
        let listed = |ranges: &Ranges| size_of_val(ranges.as_slice());
        let list = self.list.iter().map(|s| size_of::<Service>() + listed(&s.src_ports) + listed(&s.dst_ports));
        dimensions + if self.wide { list.sum() } else { 0 }
    }
}

/// Where the ports of a service begin, and where others begin again.
fn edges(ranges: &Ranges) -> impl Iterator<Item = u16> {
    ranges.as_slice().iter().flat_map(|(first, last)| [Some(*first), last.checked_add(1)]).flatten()
}

fn agrees_protocol(service: &Service, value: u16) -> bool {
    (value ^ service.protocol) & service.protocol_mask == 0
}

impl Dimension {
    /// Adds a service to the sets of the classes that `holds`, which is constant between `edges`. A class on both sides
    /// becomes two.
    fn split(&mut self, number: u16, edges: impl Iterator<Item = u16>, holds: impl Fn(u16) -> bool) {
        for edge in edges {
            let at = self.runs.partition_point(|(first, _)| *first <= edge);
            let (first, class) = self.runs[at - 1];
            if first != edge && holds(edge) != holds(edge - 1) {
                self.runs.insert(at, (edge, class));
            }
        }
        let (mut inside, mut outside) = (vec![false; self.sets.len()], vec![false; self.sets.len()]);
        for (first, class) in &self.runs {
            let side = if holds(*first) { &mut inside } else { &mut outside };
            side[usize::from(class.number)] = true;
        }
        let mut inner: Vec<u16> = (0..self.sets.len() as u16).collect();
        for class in 0..inner.len() {
            if inside[class] && outside[class] {
                inner[class] = self.sets.len() as u16;
                self.sets.push(self.sets[class]);
            }
            if inside[class] {
                self.sets[usize::from(inner[class])].0[usize::from(number) / 64] |= 1 << (number % 64);
            }
        }
        for (first, class) in &mut self.runs {
            if holds(*first) {
                class.number = inner[usize::from(class.number)];
            }
        }
        self.classes = ClassMap::new(&self.runs, self.period);
    }
}

type PortsOf = fn(&Service) -> &Ranges;

/// Stretches of values with the set of services that agree with each → classes of equal sets.
fn by_sets(stretches: Vec<(u16, ServiceSet)>, period: usize) -> Dimension {
    let mut numbers: FxHashMap<ServiceSet, u16> = FxHashMap::default();
    let mut sets = Vec::new();
    let mut runs: Runs = Vec::with_capacity(stretches.len());
    for (first, set) in stretches {
        let number = *numbers.entry(set).or_insert_with(|| {
            sets.push(Aligned(set));
            sets.len() as u16 - 1
        });
        if runs.last().is_none_or(|(_, before)| before.number != number) {
            runs.push((first, Class { number, seen: number }));
        }
    }
    Dimension { classes: ClassMap::new(&runs, period), seen: sets.len(), sets, runs, period }
}

fn narrow_ports(list: &[Service], ports: PortsOf) -> Dimension {
    // Edges in ascending order; between two edges no service begins or ends.
    let mut edges: Vec<(u32, usize, bool)> = Vec::new();
    let mut open: ServiceSet = Default::default();
    for (number, service) in list.iter().enumerate().skip(1) {
        if ports(service).is_any() {
            open[number / 64] |= 1 << (number % 64);
        }
        for (first, last) in ports(service).as_slice() {
            edges.push((u32::from(*first), number, true));
            edges.push((u32::from(*last) + 1, number, false));
        }
    }
    edges.sort_unstable();
    let mut stretches = vec![(0, open)];
    for at in edges.chunk_by(|a, b| a.0 == b.0) {
        for (_, number, opens) in at {
            let (word, bit) = (&mut open[number / 64], 1 << (number % 64));
            *word = if *opens { *word | bit } else { *word & !bit };
        }
        let Ok(port) = u16::try_from(at[0].0) else { break };
        if port == 0 {
            stretches.clear();
        }
        stretches.push((port, open));
    }
    by_sets(stretches, PORTS)
}

/// Without sets: stretches of ports, cut where the edges are, and as evenly as edges go if there are too many.
fn wide_ports(list: &[Service], ports: PortsOf) -> Dimension {
    let mut count = vec![0usize; 1 << 16];
    let mut all = 0;
    for edge in list.iter().skip(1).flat_map(|service| edges(ports(service))) {
        count[usize::from(edge)] += 1;
        all += 1;
    }
    let enough = all / SEEN_LIMIT + 1;
    let mut runs: Runs = vec![(0, Class::default())];
    let mut since = 0;
    for (port, edges) in (1..=u16::MAX).zip(&count[1..]) {
        since += edges;
        if since >= enough && *edges > 0 && runs.len() < SEEN_LIMIT {
            runs.push((port, Class { number: 0, seen: runs.len() as u16 }));
            since = 0;
        }
    }
    Dimension { classes: ClassMap::new(&runs, PORTS), seen: runs.len(), sets: Vec::new(), runs, period: PORTS }
}

fn protocols(list: &[Service], wide: bool) -> Dimension {
    let mut conditions: Vec<(u16, u16)> = list.iter().skip(1).map(|s| (s.protocol, s.protocol_mask)).collect();
    conditions.sort_unstable();
    conditions.dedup();
    // Values that differ only in bits above all that somebody asks for are alike.
    let mask = conditions.iter().fold(0, |mask, condition| mask | condition.1);
    let period = (usize::from(mask) + 1).next_power_of_two().max(256);
    let runs = (0..=(period - 1) as u16).filter(|value| *value == 0 || (value ^ (value - 1)) & mask != 0);
    if !wide {
        let set = |value: u16| {
            let mut set: ServiceSet = Default::default();
            for (number, _) in list.iter().enumerate().skip(1).filter(|(_, service)| agrees_protocol(service, value)) {
                set[number / 64] |= 1 << (number % 64);
            }
            set
        };
        return by_sets(runs.map(|first| (first, set(first))).collect(), period);
    }
    // Equal answers to all conditions make a class.
    let mut numbers: FxHashMap<Vec<bool>, u16> = FxHashMap::default();
    let runs: Runs = runs
        .map(|first| {
            let answers = conditions.iter().map(|(value, mask)| (value ^ first) & mask == 0).collect();
            let next = numbers.len() as u16;
            (first, Class { number: 0, seen: *numbers.entry(answers).or_insert(next) })
        })
        .collect();
    Dimension { classes: ClassMap::new(&runs, period), seen: numbers.len(), sets: Vec::new(), runs, period }
}
