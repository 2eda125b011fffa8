//! VMs and groups: tags, ids and networks → addresses.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::names::Names;
use crate::config::document::Place;
use crate::config::model::Vm;
use crate::config::problem::{Problems, nearest};
use crate::config::raw::{RawGroup, RawVm};
use crate::config::shape::{Entry, Shaped};
use crate::packet::Mac;
use crate::rules::{Group, GroupIx};

/// Position numbers have 16 bits and one is left free.
pub(super) const MAX_GROUPS: usize = 65_535;

#[derive(Debug)]
pub(super) struct Vms {
    pub(super) vms: Vec<Vm>,
    pub(super) names: Names,
    addresses: Vec<Vec<Address>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Address {
    Ip(IpAddr),
    Mac(Mac),
}

#[derive(Debug)]
pub(super) struct Groups {
    pub(super) groups: Vec<Group>,
    pub(super) names: Names,
}

pub(super) fn vms(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Vms {
    let entries: Vec<Entry<RawVm>> = shaped.list(problems, "vm");
    let names = Names::new("VM", shaped.names_known("vm", "id"));
    let mut vms = Vms { vms: Vec::new(), names, addresses: Vec::new() };
    let mut owners: HashMap<Address, Place> = HashMap::new();
    for Entry { place, raw, .. } in entries {
        vms.names.define(problems, &place.key("id"), &raw.id.0, vms.vms.len());
        let mut addresses = Vec::new();
        for (position, text) in raw.addresses.iter().enumerate() {
            let here = place.key("addresses").index(position);
            let Some(address) = vm_address(problems, &here, text) else { continue };
            if let Some(first) = owners.get(&address) {
                let line = problems.document.line_of(first);
                let problem = problems.error(&here, format!("address `{text}` is given twice"));
                problem.found(format!("`{text}`")).related(line, "first given here");
                continue;
            }
            owners.insert(address, here);
            addresses.push(address);
        }
        vms.vms.push(Vm {
            id: raw.id.0,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            tags: raw.tags.into_iter().map(|tag| tag.0).collect(),
        });
        vms.addresses.push(addresses);
    }
    vms
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(ip) => ip.fmt(f),
            Address::Mac(mac) => mac.fmt(f),
        }
    }
}

/// One workload's address: unicast, without a prefix length.
fn vm_address(problems: &mut Problems<'_>, place: &Place, text: &str) -> Option<Address> {
    if let Ok(mac) = text.parse::<Mac>() {
        if mac.0[0] & 1 != 0 || mac == Mac::default() {
            problems
                .error(place, format!("`{text}` is not the address of one machine"))
                .allowed("a unicast MAC address");
            return None;
        }
        return Some(Address::Mac(mac));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if ip.is_multicast() || ip.is_unspecified() || broadcast {
            problems.error(place, format!("`{text}` is not the address of one machine")).allowed("a unicast address");
            return None;
        }
        return Some(Address::Ip(ip));
    }
    let suggestion = text.parse::<IpNet>().ok().map(|net| net.addr().to_string()).or_else(|| mac_spelling(text));
    problems
        .error(place, format!("`{text}` is not an address"))
        .found(format!("`{text}`"))
        .allowed("an IPv4, IPv6 or MAC address such as `10.0.1.10`, `fd00::10` or `52:54:00:12:34:56`")
        .suggest(suggestion);
    None
}

/// Other common ways to write a MAC address.
fn mac_spelling(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | '.' | ':')).collect();
    if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs: Vec<&str> = (0..6).map(|i| &digits[2 * i..2 * i + 2]).collect();
    Some(pairs.join(":").to_lowercase())
}

pub(super) fn groups(problems: &mut Problems<'_>, shaped: &mut Shaped, vms: &Vms) -> Groups {
    let entries: Vec<Entry<RawGroup>> = shaped.list(problems, "group");
    let names = Names::new("group", shaped.names_known("group", "name"));
    let mut groups = Groups { groups: Vec::new(), names };
    let tags = TagIndex::of(&vms.vms);
    for Entry { place, raw, wrong } in entries {
        name(problems, &place.key("name"), &raw.name.0);
        groups.names.define(problems, &place.key("name"), &raw.name.0, groups.groups.len());
        let members =
            Members { problems, vms, tags: &tags, group: Group { name: raw.name.0.clone(), ..Group::default() } };
        let group = members.collect(&place, &raw);
        if is_empty(&group)
            && wrong.none_of(&["tags", "vms", "cidrs", "macs", "vlans", "vnis"])
            && vms.names.is_complete()
        {
            problems.warning(&place, format!("group `{}` has no members, so nothing matches it", group.name));
        }
        groups.groups.push(group);
    }
    if groups.groups.len() > MAX_GROUPS {
        let place = Place::root().key("group").index(MAX_GROUPS);
        problems
            .error(&place, format!("too many groups: {}", groups.groups.len()))
            .allowed(format!("at most {MAX_GROUPS}"));
    }
    groups
}

/// In `from` and `to`, a name must not be mistaken for something else.
fn name(problems: &mut Problems<'_>, place: &Place, name: &str) {
    if name == "any" || name.parse::<IpAddr>().is_ok() {
        let message = format!("a group cannot be called `{name}`, which means something else in rules");
        problems.error(place, message).found(format!("`{name}`")).allowed("a name that is no address and not `any`");
    }
}

impl Groups {
    /// Position of a group by name, without a report.
    pub(super) fn get(&self, name: &str) -> Option<GroupIx> {
        self.names.get(name).and_then(|position| u16::try_from(position).ok()).map(GroupIx)
    }

    pub(super) fn group(&self, index: GroupIx) -> Option<&Group> {
        self.groups.get(usize::from(index.0))
    }
}

/// True when no endpoint can be a member.
pub(super) fn is_empty(group: &Group) -> bool {
    group.nets.is_empty() && group.macs.is_empty() && group.vlans.is_empty() && group.vnis.is_empty()
}

/// Which VMs carry a tag.
#[derive(Debug)]
struct TagIndex<'v>(HashMap<&'v str, BTreeSet<usize>>);

impl<'v> TagIndex<'v> {
    fn of(vms: &'v [Vm]) -> Self {
        let mut index: HashMap<&str, BTreeSet<usize>> = HashMap::new();
        for (position, vm) in vms.iter().enumerate() {
            for tag in &vm.tags {
                index.entry(tag).or_default().insert(position);
            }
        }
        Self(index)
    }
}

/// Collects the members of one group.
struct Members<'a, 'p, 'd> {
    problems: &'p mut Problems<'d>,
    vms: &'a Vms,
    tags: &'a TagIndex<'a>,
    group: Group,
}

impl Members<'_, '_, '_> {
    fn collect(mut self, place: &Place, raw: &RawGroup) -> Group {
        let mut vms = self.tagged(place, raw);
        for (position, id) in raw.vms.iter().enumerate() {
            vms.extend(self.vms.names.lookup(self.problems, &place.key("vms").index(position), id));
        }
        for address in vms.into_iter().flat_map(|vm| &self.vms.addresses[vm]) {
            match address {
                Address::Ip(ip) => push(&mut self.group.nets, IpNet::from(*ip)),
                Address::Mac(mac) => push(&mut self.group.macs, *mac),
            }
        }
        for (position, text) in raw.cidrs.iter().enumerate() {
            if let Some(net) = network(self.problems, &place.key("cidrs").index(position), text) {
                push(&mut self.group.nets, net);
            }
        }
        for (position, text) in raw.macs.iter().enumerate() {
            match text.parse::<Mac>() {
                Ok(mac) => push(&mut self.group.macs, mac),
                Err(message) => {
                    let problem = self.problems.error(&place.key("macs").index(position), message);
                    problem.found(format!("`{text}`")).suggest(mac_spelling(text));
                }
            }
        }
        raw.vlans.iter().for_each(|vlan| push(&mut self.group.vlans, *vlan));
        raw.vnis.iter().for_each(|vni| push(&mut self.group.vnis, *vni));
        self.group
    }

    /// VMs that carry all tags of the group.
    fn tagged(&mut self, place: &Place, raw: &RawGroup) -> BTreeSet<usize> {
        let mut vms: Option<BTreeSet<usize>> = None;
        for (position, tag) in raw.tags.iter().enumerate() {
            let carriers = self.tags.0.get(tag.0.as_str()).cloned().unwrap_or_default();
            if carriers.is_empty() && self.vms.names.is_complete() {
                let here = place.key("tags").index(position);
                let problem = self.problems.warning(&here, format!("no VM carries the tag `{}`", tag.0));
                problem.suggest(nearest(&tag.0, self.tags.0.keys().copied()));
            }
            vms = Some(match vms {
                Some(so_far) => &so_far & &carriers,
                None => carriers,
            });
        }
        vms.unwrap_or_default()
    }
}

/// Keeps the order of the file and drops repetitions.
fn push<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// A network or single address. Bits beyond the prefix are an error: the prefix or the address is a slip.
pub(super) fn network(problems: &mut Problems<'_>, place: &Place, text: &str) -> Option<IpNet> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(IpNet::from(ip));
    }
    let Ok(net) = text.parse::<IpNet>() else {
        problems
            .error(place, format!("`{text}` is not a network"))
            .found(format!("`{text}`"))
            .allowed("a network or address such as `10.0.0.0/8`, `fd00::/64` or `10.0.1.10`");
        return None;
    };
    if net.trunc() != net {
        let problem = problems.error(place, format!("`{text}` has address bits beyond its prefix"));
        problem.found(format!("`{text}`")).suggest(net.trunc().to_string());
    }
    Some(net.trunc())
}
