//! Nets of groups and rules → one class for every address.
//!
//! ```text
//! group nets ──► sets of groups that occur ──► sets ──┐
//!      │                                              ├─► classes ◄── one table for each family ◄── address
//! rules' IPv6 nets ──► labels ────────────────────────┘
//! ```
//! A class is a label and a set: all that rows and records want to know of an address. Rules' IPv4 nets are not
//! needed, for rows look at IPv4 addresses themselves.

use std::collections::HashMap;
use std::sync::Arc;

use super::labels::{Labels, label_prefixes};
use super::nest::Block;
use super::sets::{Sets, number_sets};
use super::v4::Table4;
use super::v6::Table6;
use super::{BuildError, Entry, Prefix};
use crate::trie::BATCH;

/// What an address comes down to. The default is that of addresses in no net.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Class {
    /// The label of an IPv6 address; 0 for IPv4.
    pub address: u32,
    /// Which of [`Endpoints::sets`].
    pub set: u32,
    /// The label of that set.
    pub set_label: u32,
}

/// The tables of both families.
#[derive(Debug)]
pub struct Endpoints {
    v4: Table4,
    v6: Arc<Table6>,
    classes: Arc<[Class]>,
    /// Sets of groups that occur, each ascending; the first is empty.
    pub sets: Arc<[Vec<u16>]>,
    /// For each group, the prefixes of set labels that say that an address is in it.
    pub groups: Arc<[Vec<Block>]>,
    /// For each IPv6 net of rules, in the order given, its prefix of address labels.
    pub labels: Arc<[Block]>,
}

/// What goes in. Nets may repeat and nest in any way; an address is in a group when any of its nets holds it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nets<'a> {
    /// `value` is the number of the group.
    pub v4: &'a [Entry<u32>],
    pub v6: &'a [Entry<u128>],
    /// IPv6 nets that rules ask for, first address and length.
    pub rules: &'a [(u128, u8)],
    /// Of each group: how many rows ask for it. Group numbers are below the length of this.
    pub weights: &'a [u32],
}

impl Endpoints {
    /// # Errors
    /// See [`BuildError`].
    pub fn build(nets: Nets<'_>) -> Result<Self, BuildError> {
        let labels = label_prefixes(nets.rules)?;
        let mut union = Union::new();
        let mut v4 = pieces(owned(nets.v4).collect(), &mut union);
        let mut v6 = pieces(owned(nets.v6).chain(labelled(&labels)).collect(), &mut union);
        let occurring = v4.iter_mut().map(|(.., (_, set))| set).chain(v6.iter_mut().map(|(.., (_, set))| set));
        let sets = union.renumber(occurring);
        let Sets { labels: set_labels, groups } = number_sets(&sets, nets.weights);
        let mut numbers = HashMap::from([((0, 0), 0)]);
        let mut classes = vec![Class::default()];
        let mut class = |(address, set): (u32, u32)| {
            *numbers.entry((address, set)).or_insert_with(|| {
                classes.push(Class { address, set, set_label: set_labels[set as usize] });
                classes.len() as u32 - 1
            })
        };
        let v4 = Table4::build(&entries(v4, &mut class))?;
        let v6 = Table6::build(&entries(v6, &mut class))?.into();
        let (classes, sets, groups) = (classes.into(), sets.into(), groups.into());
        Ok(Self { v4, v6, classes, sets, groups, labels: labels.prefixes.into() })
    }

    /// The same, but some IPv4 addresses are in just these groups, each list ascending. `None` when nobody was in just
    /// these before, or the table does not take it: all is to be built anew then.
    pub fn with(&self, changes: &[(u32, Vec<u16>)]) -> Option<Self> {
        let number = |groups: &Vec<u16>| {
            let set = self.sets.iter().position(|set| set == groups)? as u32;
            self.classes.iter().position(|class| class.address == 0 && class.set == set)
        };
        let values = changes.iter().map(|(address, groups)| Some((*address, number(groups)? as u32)));
        let v4 = self.v4.with(&values.collect::<Option<Vec<_>>>()?)?;
        let (v6, classes, sets) = (self.v6.clone(), self.classes.clone(), self.sets.clone());
        Some(Self { v4, v6, classes, sets, groups: self.groups.clone(), labels: self.labels.clone() })
    }

    pub fn get4(&self, address: u32) -> Class {
        self.class(self.v4.get(address))
    }

    pub fn get6(&self, address: u128) -> Class {
        self.class(self.v6.get(address))
    }

    /// Numbers of the classes of the first `len` addresses, for [`Endpoints::class`].
    pub fn burst4(&self, addresses: &[u32; BATCH], len: usize, classes: &mut [u32; BATCH]) {
        self.v4.get_burst(addresses, len, classes);
    }

    /// As [`Endpoints::burst4`], for IPv6.
    pub fn burst6(&self, addresses: &[u128; BATCH], len: usize, classes: &mut [u32; BATCH]) {
        self.v6.get_burst(addresses, len, classes);
    }

    pub fn class(&self, number: u32) -> Class {
        self.classes[number as usize]
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let sets: usize = self.sets.iter().map(|set| size_of_val(set) + size_of_val(set.as_slice())).sum();
        let groups: usize = self.groups.iter().map(|blocks| size_of_val(blocks) + size_of_val(blocks.as_slice())).sum();
        let lists = sets + groups + size_of_val(&*self.labels) + size_of_val(&*self.classes);
        self.v4.memory_bytes() + self.v6.memory_bytes() + lists
    }
}

/// What a net says of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Group(u16),
    Label(u32),
}

type Owned<A> = (A, u8, Owner);

fn owned<A: Prefix>(nets: &[Entry<A>]) -> impl Iterator<Item = Owned<A>> {
    nets.iter().map(|net| (net.prefix.first(net.len), net.len, Owner::Group(net.value as u16)))
}

fn labelled(labels: &Labels) -> impl Iterator<Item = Owned<u128>> {
    labels.entries.iter().map(|entry| (entry.prefix, entry.len, Owner::Label(entry.value)))
}

/// An address gets the label and the set of the longest of these prefixes.
type Piece<A> = (A, u8, (u32, u32));

/// Label and set of each net: its own and those of the nets around it.
fn pieces<A: Prefix>(mut nets: Vec<Owned<A>>, union: &mut Union) -> Vec<Piece<A>> {
    nets.sort_unstable();
    let mut pieces = Vec::with_capacity(nets.len());
    // Nets around the current one, outermost first.
    let mut open: Vec<Piece<A>> = Vec::new();
    for owners in nets.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (prefix, len, _) = owners[0];
        while open.pop_if(|(around, len, _)| prefix.first(*len) != *around).is_some() {}
        let outside = open.last().map_or((0, 0), |(_, _, class)| *class);
        let (mut label, mut set) = outside;
        for (_, _, owner) in owners {
            match owner {
                Owner::Group(group) => set = union.with(set, *group),
                Owner::Label(own) => label = *own,
            }
        }
        if (label, set) != outside {
            open.push((prefix, len, (label, set)));
            pieces.push((prefix, len, (label, set)));
        }
    }
    pieces
}

fn entries<A: Prefix>(pieces: Vec<Piece<A>>, mut class: impl FnMut((u32, u32)) -> u32) -> Vec<Entry<A>> {
    pieces.into_iter().map(|(prefix, len, of)| Entry { prefix, len, value: class(of) }).collect()
}

/// Numbers for sets, which grow by one group at a time.
struct Union {
    /// By number; 0 is the empty set.
    sets: Vec<Vec<u16>>,
    numbers: HashMap<Vec<u16>, u32>,
    /// Number of a set and a group more → number.
    grown: HashMap<(u32, u16), u32>,
}

impl Union {
    fn new() -> Self {
        Self { sets: vec![Vec::new()], numbers: HashMap::from([(Vec::new(), 0)]), grown: HashMap::new() }
    }

    fn with(&mut self, set: u32, group: u16) -> u32 {
        if let Some(number) = self.grown.get(&(set, group)) {
            return *number;
        }
        let mut groups = self.sets[set as usize].clone();
        if let Err(at) = groups.binary_search(&group) {
            groups.insert(at, group);
        }
        let number = *self.numbers.entry(groups).or_insert_with_key(|groups| {
            self.sets.push(groups.clone());
            self.sets.len() as u32 - 1
        });
        self.grown.insert((set, group), number);
        number
    }

    /// New numbers for the sets that occur, in place of those that count the steps to them too. 0 is the empty set.
    fn renumber<'a>(self, occurring: impl Iterator<Item = &'a mut u32>) -> Vec<Vec<u16>> {
        let mut numbers = HashMap::from([(0, 0)]);
        let mut sets = vec![Vec::new()];
        for number in occurring {
            *number = *numbers.entry(*number).or_insert_with_key(|old| {
                sets.push(self.sets[*old as usize].clone());
                sets.len() as u32 - 1
            });
        }
        sets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trie::mask;

    const GROUPS: u32 = 6;

    fn nets<A: Prefix + std::fmt::Debug>(
        prefix: impl Strategy<Value = A>,
        max: u8,
    ) -> impl Strategy<Value = Vec<Entry<A>>> {
        let entry = (prefix, prop_oneof![0..=max, Just(max), Just(max / 2)], 0..GROUPS);
        proptest::collection::vec(entry.prop_map(|(prefix, len, value)| Entry { prefix, len, value }), 0..25)
    }

    fn few4() -> impl Strategy<Value = u32> {
        (0u32..3, 0u32..3, 0u32..5).prop_map(|(a, b, c)| a << 30 | b << 14 | c)
    }

    fn few6() -> impl Strategy<Value = u128> {
        (0u128..3, 0u128..3, 0u128..5).prop_map(|(a, b, c)| a << 126 | b << 62 | c)
    }

    fn holds(block: &Block, value: u32) -> bool {
        (block.value ^ value) & mask(block.len) == 0
    }

    fn check<A: Prefix>(endpoints: &Endpoints, nets: &[Entry<A>], address: A, max: u8, class: Class) {
        let wanted = |group: u32| {
            let mut own = nets.iter().filter(|net| net.value == group);
            own.any(|net| net.prefix.first(net.len) == address.first(max).first(net.len))
        };
        for group in 0..GROUPS {
            let listed = endpoints.sets[class.set as usize].contains(&(group as u16));
            let labelled = endpoints.groups[group as usize].iter().any(|block| holds(block, class.set_label));
            assert_eq!((listed, labelled), (wanted(group), wanted(group)), "group {group}");
        }
    }

    proptest! {
        #[test]
        fn classes_say_groups_and_labels(
            v4 in nets(few4(), 32), v6 in nets(few6(), 128), rules in nets(few6(), 128),
            more4 in proptest::collection::vec(few4(), 10), more6 in proptest::collection::vec(few6(), 10),
        ) {
            let rules: Vec<(u128, u8)> = rules.iter().map(|net| (net.prefix, net.len)).collect();
            let nets = Nets { v4: &v4, v6: &v6, rules: &rules, weights: &[1; GROUPS as usize] };
            let endpoints = Endpoints::build(nets).unwrap();
            for address in v4.iter().map(|net| net.prefix).chain(more4) {
                let class = endpoints.get4(address);
                prop_assert_eq!(class.address, 0);
                check(&endpoints, &v4, address, 32, class);
            }
            for address in v6.iter().map(|net| net.prefix).chain(rules.iter().map(|(prefix, _)| *prefix)).chain(more6) {
                let class = endpoints.get6(address);
                check(&endpoints, &v6, address, 128, class);
                for ((prefix, len), block) in rules.iter().zip(endpoints.labels.iter()) {
                    prop_assert_eq!(holds(block, class.address), prefix.first(*len) == address.first(*len));
                }
            }
            let distinct: std::collections::HashSet<_> = endpoints.classes.iter().collect();
            prop_assert_eq!(distinct.len(), endpoints.classes.len());
        }
    }

    #[test]
    fn only_sets_that_occur_are_listed() {
        let nets = |value| Entry { prefix: 10 << 24, len: 8, value };
        let nets = Nets { v4: &[nets(0), nets(2), nets(1)], weights: &[1; 3], ..Nets::default() };
        assert_eq!(Endpoints::build(nets).unwrap().sets[..], [vec![], vec![0, 1, 2]]);
    }

    #[test]
    fn nets_that_add_nothing_take_nothing() {
        let wide = Entry { prefix: 10 << 24, len: 8, value: 0 };
        let inside: Vec<_> = (0..100).map(|host| Entry { prefix: 10 << 24 | host << 8, len: 32, value: 0 }).collect();
        let all = [vec![wide], inside].concat();
        let memory =
            |v4: &[Entry<u32>]| Endpoints::build(Nets { v4, weights: &[1], ..Nets::default() }).unwrap().memory_bytes();
        assert_eq!(memory(&all), memory(&[wide]));
    }
}
