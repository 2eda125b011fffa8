//! What packets and rules have in common: [`Subject`] → [`Key`], [`Match`] → [`Row`]s.
//!
//! ```text
//!  address ─────► class ─► label (IPv6), label of the set of groups     ┐
//!  MAC, VLAN, VNI ───────► label of the set of groups                   ├─► Key: a value of each kind
//!  protocol, ports, ICMP type and code, fragment? ─► protocol and ports ┘
//!
//!  group in a rule ─► prefixes of set labels, for each kind by which the group has members
//!  net in a rule   ─► prefix of addresses (IPv4), prefix of labels (IPv6)
//!  a rule's sources × its destinations = its rows
//! ```
//! Every membership is a kind of its own, so an endpoint that is in one group by its address and in another by its
//! VLAN matches the rules of both, exactly. Each family of addresses has rows of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::checks::CompileError;
use super::group_sets::{GroupSets, Kinds, SetIndex};
use super::labels::Labels;
use super::rule::{Group, GroupIx, GroupSetHandle, Match, Policy, Selector, Subject};
use super::tables::Points;
use crate::packet::{Mac, has_ports, is_icmp};
use crate::trie::address::{Block, Endpoints, Entry, Nets, number_sets};
use crate::trie::{Key, Kind, Ranges, Row, Service, Side};

/// In a key's protocol, beside the protocol's number: its ports are known, its ICMP type and code are.
const WITH_PORTS: u16 = 1 << 8;
const WITH_ICMP: u16 = 1 << 9;
const NUMBER: u16 = 0xff;

/// IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// Of a packet. Frames without IP are judged as IPv6 without addresses.
    pub(super) fn of(subject: &Subject) -> Self {
        if subject.tuple.version == 4 { Self::V4 } else { Self::V6 }
    }
}

/// The tables of one set of groups and of the IPv6 nets in rules.
#[derive(Clone, Debug)]
pub(super) struct Keyspace {
    endpoints: Arc<Endpoints>,
    macs: Points<Mac, Member>,
    vlans: Points<u16, Member>,
    vnis: Points<u32, Member>,
    sets: GroupSets,
    /// By group and family: what a row asks for.
    groups: Vec<[Vec<Side>; 2]>,
    nets: HashMap<(u128, u8), Block>,
}

/// What a MAC, VLAN or VNI says of its endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// Number of the set of groups.
    set: u32,
    /// Its label.
    label: u32,
}

/// A packet's values, and the groups of its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) key: Key,
    pub(super) src_groups: GroupSetHandle,
    pub(super) dst_groups: GroupSetHandle,
}

impl Keyspace {
    pub(super) fn build(policy: &Policy, labels: &Labels) -> Result<Self, CompileError> {
        let groups = &policy.groups;
        let weights = weights(policy);
        let mut v4: Vec<Entry<u32>> = Vec::new();
        let mut v6: Vec<Entry<u128>> = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            let value = at as u32;
            for net in &group.nets {
                match net {
                    IpNet::V4(net) => v4.push(Entry { prefix: net.network().into(), len: net.prefix_len(), value }),
                    IpNet::V6(net) => v6.push(Entry { prefix: net.network().into(), len: net.prefix_len(), value }),
                }
            }
        }
        let mut rules: Vec<(u128, u8)> = matches(policy).flat_map(v6_nets).collect();
        rules.sort_unstable();
        rules.dedup();
        let endpoints = Endpoints::build(Nets { v4: &v4, v6: &v6, rules: &rules, weights: &weights })
            .map_err(CompileError::Addresses)?;

        let mut kinds =
            Kinds { ip: SetIndex::new(), mac: SetIndex::new(), vlan: SetIndex::new(), vni: SetIndex::new() };
        for set in endpoints.sets.iter() {
            kinds.ip.intern(set.clone());
        }
        let (macs, by_mac) = members(groups, |group| &group.macs, &mut kinds.mac, &weights);
        let (vlans, by_vlan) = members(groups, |group| &group.vlans, &mut kinds.vlan, &weights);
        let (vnis, by_vni) = members(groups, |group| &group.vnis, &mut kinds.vni, &weights);
        let sides = |at: usize, family: Family| {
            let group = &groups[at];
            let has_nets = group.nets.iter().any(|net| net.addr().is_ipv4() == (family == Family::V4));
            let kinds = [
                (Kind::AddressSet, &*endpoints.groups, has_nets),
                (Kind::MacSet, &by_mac[..], !group.macs.is_empty()),
                (Kind::VlanSet, &by_vlan[..], !group.vlans.is_empty()),
                (Kind::VniSet, &by_vni[..], !group.vnis.is_empty()),
            ];
            let kinds = kinds.into_iter().filter(|(.., used)| *used);
            kinds.flat_map(|(kind, blocks, _)| blocks[at].iter().map(move |block| side(kind, block))).collect()
        };
        Ok(Self {
            groups: (0..groups.len()).map(|at| Family::ALL.map(|family| sides(at, family))).collect(),
            nets: rules.into_iter().zip(endpoints.labels.iter().copied()).collect(),
            sets: GroupSets::build(&kinds, groups, labels)?,
            endpoints: Arc::new(endpoints),
            macs,
            vlans,
            vnis,
        })
    }

    /// The same, but some IPv4 addresses are in just these groups, each list ascending. `None`: build anew.
    pub(super) fn with(&self, changes: &[(u32, Vec<u16>)]) -> Option<Self> {
        Some(Self { endpoints: Arc::new(self.endpoints.with(changes)?), ..self.clone() })
    }

    /// Whether rules about a group look at IPv4 addresses.
    pub(super) fn has_v4(&self, group: GroupIx) -> bool {
        self.groups[usize::from(group.0)][Family::V4 as usize].iter().any(|side| side.kind == Kind::AddressSet)
    }

    /// Where a packet lies.
    pub(super) fn place(&self, subject: &Subject) -> Place {
        let tuple = &subject.tuple;
        let class = |addr: u128| match Family::of(subject) {
            Family::V4 => (addr as u32, self.endpoints.get4(addr as u32)),
            Family::V6 => {
                let class = self.endpoints.get6(addr);
                (class.address, class)
            }
        };
        let ((src, src_class), (dst, dst_class)) = (class(tuple.src), class(tuple.dst));
        let (src_mac, dst_mac) = (self.macs.get(subject.src_mac), self.macs.get(subject.dst_mac));
        let (vlan, vni) = (self.vlans.get(tuple.vlan), self.vnis.get(tuple.vni));
        let number = u16::from(tuple.protocol);
        let (protocol, src_port, dst_port) = match tuple.protocol {
            p if has_ports(p) && subject.ports_known => (number | WITH_PORTS, tuple.src_port, tuple.dst_port),
            p if is_icmp(p) && subject.ports_known => {
                (number | WITH_ICMP, 0, u16::from_be_bytes([subject.icmp.0, subject.icmp.1]))
            }
            _ => (number, 0, 0),
        };
        Place {
            key: Key {
                src: [src, src_class.set_label, src_mac.label, vlan.label, vni.label],
                dst: [dst, dst_class.set_label, dst_mac.label, vlan.label, vni.label],
                protocol,
                src_port,
                dst_port,
                vlan: tuple.vlan,
                vni: tuple.vni,
            },
            src_groups: self.sets.get(src_class.set, src_mac.set, vlan.set, vni.set),
            dst_groups: self.sets.get(dst_class.set, dst_mac.set, vlan.set, vni.set),
        }
    }

    /// The rows of a match for packets of one family, and none if it asks for what no such packet has. `None` when
    /// it has a net that was not there at the build.
    pub(super) fn rows(&self, m: &Match, family: Family, passive: bool) -> Option<Vec<Row>> {
        let Some(service) = service(m) else { return Some(Vec::new()) };
        let (from, to) = (self.sides(&m.from, family)?, self.sides(&m.to, family)?);
        let mut rows = Vec::with_capacity(from.len() * to.len());
        for src in &from {
            for dst in &to {
                let service = service.clone();
                rows.push(Row { src: *src, dst: *dst, service, vlan: m.vlan, vni: m.vni, passive });
            }
        }
        Some(rows)
    }

    /// How many rows [`Keyspace::rows`] would give, for both families.
    pub(super) fn row_count(&self, m: &Match) -> Option<usize> {
        let count = |family| Some(self.sides(&m.from, family)?.len().saturating_mul(self.sides(&m.to, family)?.len()));
        Some(count(Family::V4)?.saturating_add(count(Family::V6)?))
    }

    fn sides(&self, selectors: &[Selector], family: Family) -> Option<Vec<Side>> {
        if selectors.is_empty() {
            return Some(vec![Side::ANY]);
        }
        let mut sides = Vec::new();
        for selector in selectors {
            match (selector, family) {
                (Selector::Group(GroupIx(at)), _) => sides.extend(&self.groups[usize::from(*at)][family as usize]),
                (Selector::Net(IpNet::V4(net)), Family::V4) => {
                    sides.push(Side::new(Kind::Address, net.network().into(), net.prefix_len()));
                }
                (Selector::Net(IpNet::V6(net)), Family::V6) => {
                    let block = self.nets.get(&(net.network().into(), net.prefix_len()))?;
                    sides.push(side(Kind::Address, block));
                }
                _ => {}
            }
        }
        // Some lie inside others, as hosts in a net.
        sides.sort_unstable_by_key(|side| (side.kind, side.len, side.value));
        let mut kept: Vec<Side> = Vec::with_capacity(sides.len());
        let mut seen: HashMap<(Kind, u8), Vec<u32>> = HashMap::new();
        for side in sides {
            let covered = seen.iter().any(|((kind, len), values)| {
                (*len == 0 || *kind == side.kind)
                    && values.binary_search(&(side.value & crate::trie::mask(*len))).is_ok()
            });
            if !covered {
                seen.entry((side.kind, side.len)).or_default().push(side.value);
                kept.push(side);
            }
        }
        Some(kept)
    }

    pub(super) fn group_sets_exact(&self) -> bool {
        self.sets.exact()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let sides: usize = self.groups.iter().flatten().map(|sides| size_of_val(&**sides)).sum();
        self.endpoints.memory_bytes()
            + self.macs.memory_bytes()
            + self.vlans.memory_bytes()
            + self.vnis.memory_bytes()
            + self.sets.memory_bytes()
            + sides
            + self.nets.capacity() * size_of::<((u128, u8), Block)>()
    }
}

fn side(kind: Kind, block: &Block) -> Side {
    Side::new(kind, block.value, block.len)
}

/// All matches of a policy, of rules and of mirror sessions.
fn matches(policy: &Policy) -> impl Iterator<Item = &Match> {
    policy.rules.iter().map(|rule| &rule.matches).chain(policy.mirrors.iter().flat_map(|mirror| &mirror.any_of))
}

fn v6_nets(m: &Match) -> impl Iterator<Item = (u128, u8)> {
    m.from.iter().chain(&m.to).filter_map(|selector| match selector {
        Selector::Net(IpNet::V6(net)) => Some((net.network().into(), net.prefix_len())),
        _ => None,
    })
}

/// How often each group is asked for.
fn weights(policy: &Policy) -> Vec<u32> {
    let mut weights = vec![0; policy.groups.len()];
    for selector in matches(policy).flat_map(|m| m.from.iter().chain(&m.to)) {
        if let Selector::Group(GroupIx(at)) = selector {
            weights[usize::from(*at)] += 1;
        }
    }
    weights
}

/// Key (MAC, VLAN, VNI) → its groups; and for each group the blocks of set labels that say so.
fn members<K: Copy + Ord>(
    groups: &[Group],
    keys: impl Fn(&Group) -> &Vec<K>,
    sets: &mut SetIndex,
    weights: &[u32],
) -> (Points<K, Member>, Vec<Vec<Block>>) {
    let mut groups_of: BTreeMap<K, Vec<u16>> = BTreeMap::new();
    for (at, group) in groups.iter().enumerate() {
        for key in keys(group) {
            groups_of.entry(*key).or_default().push(at as u16);
        }
    }
    let numbers: BTreeMap<K, u32> = groups_of
        .into_iter()
        .map(|(key, mut groups)| {
            groups.dedup();
            (key, sets.intern(groups))
        })
        .collect();
    let numbered = number_sets(sets.sets(), weights);
    let member = |set: u32| Member { set, label: numbered.labels[set as usize] };
    let points = numbers.into_iter().map(|(key, set)| (key, member(set))).collect();
    (Points::new(points, Member::default()), numbered.groups)
}

/// The conditions of a match on protocol, ports and ICMP; `None` when no packet fulfils them.
fn service(m: &Match) -> Option<Service> {
    let (protocol, mask) = m.protocol.map_or((0, 0), |protocol| (u16::from(protocol), NUMBER));
    let (src_ports, dst_ports) = (Ranges::new(m.from_ports.iter().cloned())?, Ranges::new(m.to_ports.iter().cloned())?);
    let has_ports = !m.from_ports.is_empty() || !m.to_ports.is_empty();
    match m.icmp {
        Some(_) if has_ports => None,
        Some((kind, code)) => {
            let (first, last) = code.map_or((0, u8::MAX), |code| (code, code));
            let [first, last] = [first, last].map(|code| u16::from_be_bytes([kind, code]));
            let dst_ports = Ranges::new([first..=last])?;
            Some(Service {
                protocol: protocol | WITH_ICMP,
                protocol_mask: mask | WITH_ICMP,
                src_ports: Ranges::ANY,
                dst_ports,
            })
        }
        None if has_ports => {
            Some(Service { protocol: protocol | WITH_PORTS, protocol_mask: mask | WITH_PORTS, src_ports, dst_ports })
        }
        None => Some(Service { protocol, protocol_mask: mask, src_ports: Ranges::ANY, dst_ports: Ranges::ANY }),
    }
}
