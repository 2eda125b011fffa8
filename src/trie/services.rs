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
//! With more than 511 services there are no sets: a row's service is compared by its ranges, and only if the
//! addresses agree.

use std::collections::HashMap;

use super::block::SERVICE_BITS;
use super::row::Service;

/// A set of services.
pub(super) type ServiceSet = [u64; SERVICE_BITS / 64];

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

impl ClassMap {
    fn new(class_of: &[Class]) -> Self {
        let mut numbers: HashMap<[Class; 256], u16> = HashMap::new();
        let mut map = Self { top: Box::new([0; 256]), chunks: Vec::new() };
        for (top, chunk) in map.top.iter_mut().zip(class_of.as_chunks::<256>().0) {
            *top = *numbers.entry(*chunk).or_insert_with(|| {
                map.chunks.push(*chunk);
                map.chunks.len() as u16 - 1
            });
        }
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
    pub(super) count: usize,
    /// By class; empty when there are more services than a set can hold.
    pub(super) sets: Vec<Aligned>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(64))]
pub(super) struct Aligned(pub(super) ServiceSet);

/// All services of a set of rows.
#[derive(Clone, Debug)]
pub(super) struct Services {
    /// By service number; number 0 is none.
    pub(super) list: Vec<Service>,
    numbers: HashMap<Service, u16>,
    /// Source port, destination port, protocol.
    pub(super) dimensions: [Dimension; 3],
    /// By dimension and service: the classes, as a window sees them, that agree with it.
    pub(super) agreeing: [Vec<Vec<u16>>; 3],
    pub(super) wide: bool,
}

/// More services than numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyServices;

impl Services {
    pub(super) fn build<'a>(services: impl Iterator<Item = &'a Service>) -> Result<Self, TooManyServices> {
        let mut list = vec![Service::default()];
        let mut numbers = HashMap::new();
        for service in services {
            if !numbers.contains_key(service) {
                let number = u16::try_from(list.len()).map_err(|_| TooManyServices)?;
                numbers.insert(service.clone(), number);
                list.push(service.clone());
            }
        }
        let wide = list.len() > SERVICE_BITS;
        let dimensions = [
            dimension(port_classes(&list, |service| service.src_ports.as_slice()), wide),
            dimension(port_classes(&list, |service| service.dst_ports.as_slice()), wide),
            dimension(protocol_classes(&list), wide),
        ];
        let mut services = Self { list, numbers, dimensions, agreeing: Default::default(), wide };
        services.agree();
        Ok(services)
    }

    fn agree(&mut self) {
        for (at, dimension) in self.dimensions.iter().enumerate() {
            let mut agreeing = vec![Vec::new(); self.list.len()];
            for value in representatives(&dimension.classes, dimension.count) {
                let class = dimension.classes.get(value).seen;
                for (number, service) in self.list.iter().enumerate().skip(1) {
                    if holds(service, at, value) && agreeing[number].last() != Some(&class) {
                        agreeing[number].push(class);
                    }
                }
            }
            for classes in &mut agreeing {
                classes.sort_unstable();
                classes.dedup();
            }
            self.agreeing[at] = agreeing;
        }
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
        let mut next = self.clone();
        next.list.push(service.clone());
        next.numbers.insert(service.clone(), number);
        for (at, dimension) in next.dimensions.iter_mut().enumerate() {
            dimension.split(service, at, number, self.wide);
        }
        for (at, dimension) in next.dimensions.iter().enumerate() {
            let values = representatives(&dimension.classes, dimension.count);
            let agreeing = values.filter(|value| holds(service, at, *value));
            let mut agreeing: Vec<u16> = agreeing.map(|value| dimension.classes.get(value).seen).collect();
            agreeing.sort_unstable();
            agreeing.dedup();
            next.agreeing[at].push(agreeing);
        }
        Ok(next)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let dimensions = self.dimensions.iter();
        dimensions.map(|d| d.classes.memory_bytes() + size_of_val(&*d.sets)).sum::<usize>()
            + if self.wide { size_of_val(&*self.list) } else { 0 }
    }
}

impl Dimension {
    /// Tells apart the values that `service` tells apart.
    fn split(&mut self, service: &Service, at: usize, number: u16, wide: bool) {
        let mut class_of: Vec<Class> = (0..=u16::MAX).map(|value| self.classes.get(value)).collect();
        let before = self.count;
        let (mut inside, mut outside) = (vec![false; before], vec![false; before]);
        for (value, class) in (0..=u16::MAX).zip(&class_of) {
            let side = if holds(service, at, value) { &mut inside } else { &mut outside };
            side[usize::from(class.number)] = true;
        }
        // Where a class is on both sides, its inner part becomes a class of its own.
        let mut split = vec![None; before];
        for class in 0..before {
            if inside[class] && outside[class] {
                split[class] = Some(self.count as u16);
                self.count += 1;
                if !wide {
                    self.sets.push(self.sets[class]);
                }
            }
        }
        for (value, class) in (0..=u16::MAX).zip(class_of.iter_mut()) {
            if let Some(inner) = split[usize::from(class.number)]
                && holds(service, at, value)
            {
                class.number = inner;
            }
        }
        self.classes = ClassMap::new(&class_of);
        if !wide {
            for class in 0..before {
                let holder = split[class].map_or(class, usize::from);
                if inside[class] {
                    self.sets[holder].0[usize::from(number) / 64] |= 1 << (number % 64);
                }
            }
        }
    }
}

/// Condition `at` (source port, destination port, protocol) of a service on a value.
fn holds(service: &Service, at: usize, value: u16) -> bool {
    match at {
        0 => service.src_ports.hold(value),
        1 => service.dst_ports.hold(value),
        _ => (value ^ service.protocol) & service.protocol_mask == 0,
    }
}

/// A value of each class.
fn representatives(classes: &ClassMap, count: usize) -> impl Iterator<Item = u16> {
    let mut found = vec![None; count];
    for (top, chunk) in classes.top.iter().enumerate() {
        for (low, class) in classes.chunks[usize::from(*chunk)].iter().enumerate() {
            found[usize::from(class.number)].get_or_insert((top << 8 | low) as u16);
        }
    }
    found.into_iter().flatten()
}

/// Stretches of values that no service tells apart: the first value of each, and the services that agree.
type Stretches = Vec<(u16, Vec<u64>)>;

fn dimension(stretches_of: (Vec<u32>, Stretches), wide: bool) -> Dimension {
    let (stretch_of, stretches) = stretches_of;
    let mut numbers: HashMap<&[u64], u16> = HashMap::new();
    let mut sets = Vec::new();
    let classes: Vec<u16> = stretches
        .iter()
        .map(|(_, services)| {
            *numbers.entry(services).or_insert_with(|| {
                sets.push(services);
                sets.len() as u16 - 1
            })
        })
        .collect();
    let class_of = stretch_of.iter().map(|stretch| classes[*stretch as usize]);
    let class_of: Vec<Class> = class_of.map(|number| Class { number, seen: number }).collect();
    let count = sets.len();
    let aligned = |set: &&Vec<u64>| Aligned(std::array::from_fn(|word| set.get(word).copied().unwrap_or(0)));
    let sets = if wide { Vec::new() } else { sets.iter().map(aligned).collect() };
    Dimension { classes: ClassMap::new(&class_of), count, sets }
}

fn port_classes(list: &[Service], ranges: impl Fn(&Service) -> &[(u16, u16)]) -> (Vec<u32>, Stretches) {
    // Edges in ascending order; between two edges no service begins or ends.
    let mut edges: Vec<(u32, u16, bool)> = Vec::new();
    let mut open = vec![0u64; list.len().div_ceil(64)];
    for (number, service) in list.iter().enumerate().skip(1) {
        let ranges = ranges(service);
        if ranges.is_empty() {
            open[number / 64] |= 1 << (number % 64);
        }
        for (first, last) in ranges {
            edges.push((u32::from(*first), number as u16, true));
            edges.push((u32::from(*last) + 1, number as u16, false));
        }
    }
    edges.sort_unstable();
    let mut stretches = vec![(0, open.clone())];
    for at in edges.chunk_by(|a, b| a.0 == b.0) {
        for (_, number, opens) in at {
            let bit = 1 << (number % 64);
            let word = &mut open[usize::from(*number) / 64];
            *word = if *opens { *word | bit } else { *word & !bit };
        }
        let Ok(port) = u16::try_from(at[0].0) else { break };
        if port == 0 {
            stretches.clear();
        }
        stretches.push((port, open.clone()));
    }
    let mut stretch_of = Vec::with_capacity(1 << 16);
    for (number, (first, _)) in stretches.iter().enumerate() {
        let next = stretches.get(number + 1).map_or(1 << 16, |(next, _)| usize::from(*next));
        stretch_of.resize(stretch_of.len() + next - usize::from(*first), number as u32);
    }
    (stretch_of, stretches)
}

fn protocol_classes(list: &[Service]) -> (Vec<u32>, Stretches) {
    let mask = list.iter().fold(0, |mask, service| mask | service.protocol_mask);
    let mut stretches: Stretches = Vec::new();
    let mut numbers: HashMap<u16, u32> = HashMap::new();
    let stretch_of = (0..=u16::MAX)
        .map(|value| {
            *numbers.entry(value & mask).or_insert_with(|| {
                let mut set = vec![0; list.len().div_ceil(64)];
                for (number, service) in list.iter().enumerate().skip(1) {
                    if holds(service, 2, value) {
                        set[number / 64] |= 1 << (number % 64);
                    }
                }
                stretches.push((value, set));
                stretches.len() as u32 - 1
            })
        })
        .collect();
    (stretch_of, stretches)
}
