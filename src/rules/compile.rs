//! [`Policy`] → [`Compiled`]: checks, evaluation order, then one pass per dimension.
//!
//! Every enabled rule and every [`Match`] of a mirror session becomes a row. For each dimension (source
//! address, ports, VLAN, …) and each class of values that no row tells apart, a bit vector says which rows
//! agree. A packet matches the rows whose bit is set in all dimensions: the bit vector scheme of Lakshman
//! and Stiliadis (SIGCOMM 1998).

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::bits::{ArenaBuilder, Bits, RowSet};
use super::compiled::{Addresses, Compiled, Endpoint, IcmpBits, LinkTables, PortBits, Rows, RuleRow, Segment};
use super::group_sets::{GroupSets, Kinds, SetIndex};
use super::labels::Labels;
use super::rule::{
    Action, Decision, Group, GroupIx, MAX_MIRRORS, Match, MirrorMatch, Mode, Policy, Rule, RuleHandle, Selector,
};
use super::tables::{Intervals, Net, Points, sweep};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// TCP, UDP, SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// Why a policy does not compile. The generation in force stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error(
        "{fresh} new rule ids on top of {known} known ones exceed the limit of {limit} distinct rule ids in the life \
         of the process; raise `limits.rules` and restart, or keep ids when rules change"
    )]
    TooManyRules { known: usize, fresh: usize, limit: usize },
    #[error(
        "{fresh} new sets of groups on top of {known} known ones exceed the limit of {limit}; let fewer groups \
         overlap, or restart to forget the groups of earlier generations"
    )]
    TooManyGroupSets { known: usize, fresh: usize, limit: usize },
    #[error("{count} mirror sessions, at most {MAX_MIRRORS} are possible")]
    TooManyMirrors { count: usize },
    #[error("{count} groups, at most 65536 are possible")]
    TooManyGroups { count: usize },
    #[error("two rules have the id `{id}`; an id names one rule for life")]
    DuplicateRule { id: String },
    #[error("two groups have the name `{name}`")]
    DuplicateGroup { name: String },
    #[error("{place} refers to group number {group}, but there are {count} groups")]
    UnknownGroup { place: String, group: u16, count: usize },
}

impl Compiled {
    /// Compiles one generation. Numbers for rule ids and group sets are added to `labels`.
    ///
    /// Evaluation order: tier, priority (lowest first), then `log`, `deny`, `reject`, `allow`, then id. Log
    /// rules come before deciding rules of the same priority, for they would not be reached otherwise.
    /// Disabled rules and shadow-mode log rules have no effect and are left out. `stateful` counts only for
    /// `allow`.
    ///
    /// # Errors
    /// See [`CompileError`]; `labels` is then unchanged, except that after `TooManyGroupSets` it knows the
    /// new rule ids.
    pub fn build(policy: &Policy, generation: u32, labels: &Labels) -> Result<Compiled, CompileError> {
        check(policy)?;
        let rules = in_order(&policy.rules);
        let ids: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        let handles = labels.intern_rules(&ids)?;
        let rows = rows(&rules, &handles, policy);
        let mut matches: Vec<(usize, &Match)> = rules.iter().map(|rule| &rule.matches).enumerate().collect();
        let mirror_matches = policy.mirrors.iter().flat_map(|mirror| &mirror.any_of);
        matches.extend(mirror_matches.enumerate().map(|(at, m)| (rows.rule_words() * 64 + at, m)));

        let mut builder = Builder::new(&policy.groups, matches, rows.words());
        let mut kinds =
            Kinds { ip: SetIndex::new(), mac: SetIndex::new(), vlan: SetIndex::new(), vni: SetIndex::new() };
        let addresses = builder.addresses(&mut kinds.ip);
        let links = builder.links(&mut kinds);
        let protocol = builder.protocols();
        let ports = builder.ports();
        let icmp = builder.icmp();
        Ok(Compiled {
            generation,
            rows,
            addresses,
            links,
            protocol,
            ports,
            icmp,
            group_sets: GroupSets::build(&kinds, &policy.groups, labels)?,
            arena: builder.arena.finish(),
        })
    }
}

fn check(policy: &Policy) -> Result<(), CompileError> {
    if policy.mirrors.len() > MAX_MIRRORS {
        return Err(CompileError::TooManyMirrors { count: policy.mirrors.len() });
    }
    if policy.groups.len() > 1 << 16 {
        return Err(CompileError::TooManyGroups { count: policy.groups.len() });
    }
    let mut ids = HashSet::new();
    if let Some(rule) = policy.rules.iter().find(|rule| !ids.insert(rule.id.as_str())) {
        return Err(CompileError::DuplicateRule { id: rule.id.clone() });
    }
    let mut names = HashSet::new();
    if let Some(group) = policy.groups.iter().find(|group| !names.insert(group.name.as_str())) {
        return Err(CompileError::DuplicateGroup { name: group.name.clone() });
    }
    for rule in &policy.rules {
        check_groups(&rule.matches, policy.groups.len(), || format!("rule `{}`", rule.id))?;
    }
    for (at, mirror) in policy.mirrors.iter().enumerate() {
        for m in &mirror.any_of {
            check_groups(m, policy.groups.len(), || format!("mirror session {at}"))?;
        }
    }
    Ok(())
}

fn check_groups(m: &Match, count: usize, place: impl Fn() -> String) -> Result<(), CompileError> {
    for selector in m.from.iter().chain(&m.to) {
        match selector {
            Selector::Group(GroupIx(group)) if usize::from(*group) >= count => {
                return Err(CompileError::UnknownGroup { place: place(), group: *group, count });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The rules that have an effect, in evaluation order.
fn in_order(rules: &[Rule]) -> Vec<&Rule> {
    let inert = |rule: &Rule| match rule.mode {
        Mode::Disabled => true,
        Mode::Shadow => rule.action == Action::Log,
        Mode::Enforce => false,
    };
    let mut rules: Vec<&Rule> = rules.iter().filter(|rule| !inert(rule)).collect();
    rules.sort_unstable_by_key(|rule| (rule.tier, rule.priority, action_rank(rule.action), rule.id.as_str()));
    rules
}

fn action_rank(action: Action) -> u8 {
    match action {
        Action::Log => 0,
        Action::Deny => 1,
        Action::Reject => 2,
        Action::Allow => 3,
    }
}

/// What the rows mean, as opposed to what they match.
fn rows(rules: &[&Rule], handles: &[RuleHandle], policy: &Policy) -> Rows {
    let words = rules.len().div_ceil(64);
    let blank = ArenaBuilder::new(words).blank();
    let (mut deciding, mut logging, mut shadowing) = (blank.clone(), blank.clone(), blank);
    let mut meaning = Vec::with_capacity(rules.len());
    let mut shadows = Vec::new();
    for (row, (rule, handle)) in rules.iter().zip(handles).enumerate() {
        match (rule.mode, rule.action) {
            (_, Action::Log) => logging.insert(row),
            (Mode::Shadow, _) => {
                shadowing.insert(row);
                shadows.push(*handle);
            }
            _ => deciding.insert(row),
        }
        let decision = match rule.action {
            Action::Allow | Action::Log => Decision::Allow,
            Action::Deny => Decision::Deny,
            Action::Reject => Decision::Reject,
        };
        let stateful = rule.stateful && rule.action == Action::Allow;
        let shadows = shadows.len() as u32;
        meaning.push(RuleRow { handle: *handle, decision, stateful, tier: rule.tier, shadows });
    }
    let sessions = policy.mirrors.iter().enumerate();
    Rows {
        rules: meaning.into(),
        deciding: deciding.words(),
        logging: logging.words(),
        shadowing: shadowing.words(),
        shadows: shadows.into(),
        mirrors: sessions.flat_map(|(at, mirror)| vec![1u64 << at; mirror.any_of.len()]).collect(),
        mirrors_of: [Decision::Allow, Decision::Deny, Decision::Reject].map(|d| sessions_for(&policy.mirrors, d)),
        default: policy.default,
    }
}

/// Sessions that want packets with this decision.
fn sessions_for(mirrors: &[MirrorMatch], decision: Decision) -> u64 {
    let wants = |mirror: &MirrorMatch| mirror.decisions.is_empty() || mirror.decisions.contains(&decision);
    mirrors.iter().enumerate().filter(|(_, mirror)| wants(mirror)).fold(0, |mask, (at, _)| mask | 1 << at)
}

/// Rows that a side (source or destination) concerns.
#[derive(Debug)]
struct Side {
    /// Rows without a selector on this side.
    any: Vec<u32>,
    by_group: Vec<Vec<u32>>,
}

/// Who claims an address range: a group, or a row on one of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Owner {
    Group(u16),
    From(u32),
    To(u32),
}

#[derive(Debug)]
struct Builder<'a> {
    groups: &'a [Group],
    matches: Vec<(usize, &'a Match)>,
    from: Side,
    to: Side,
    arena: ArenaBuilder,
}

impl<'a> Builder<'a> {
    fn new(groups: &'a [Group], matches: Vec<(usize, &'a Match)>, words: usize) -> Self {
        let from = side(&matches, groups.len(), |m| &m.from);
        let to = side(&matches, groups.len(), |m| &m.to);
        Self { groups, matches, from, to, arena: ArenaBuilder::new(words) }
    }

    /// Rows for which `holds`, as a vector.
    fn rows_where(&mut self, holds: impl Fn(&Match) -> bool) -> Bits {
        let mut rows = self.arena.blank();
        for (row, m) in &self.matches {
            if holds(m) {
                rows.insert(*row);
            }
        }
        self.arena.intern(&rows)
    }

    fn addresses(&mut self, sets: &mut SetIndex) -> Addresses {
        let (v4, v6): (Vec<_>, Vec<_>) = self.owned_nets().into_iter().partition(|(net, _)| net.addr().is_ipv4());
        let mut numbers: HashMap<Vec<Owner>, u32> = HashMap::new();
        let mut classes: Vec<Endpoint> = Vec::new();
        let mut class = |owners: &[Owner]| {
            if let Some(number) = numbers.get(owners) {
                return *number;
            }
            let number = classes.len() as u32;
            classes.push(self.endpoint(owners, sets));
            numbers.insert(owners.to_vec(), number);
            number
        };
        let v4 =
            sweep(v4.into_iter().map(|(net, owner)| range(net, owner)).collect(), u128::from(u32::MAX), &mut class);
        let v6 = sweep(v6.into_iter().map(|(net, owner)| range(net, owner)).collect(), u128::MAX, &mut class);
        Addresses {
            v4: Intervals::new(v4.into_iter().map(|(start, class)| (start as u32, class))),
            v6: Intervals::new(v6),
            classes: classes.into(),
        }
    }

    fn owned_nets(&self) -> Vec<(IpNet, Owner)> {
        let mut nets = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            nets.extend(group.nets.iter().map(|net| (*net, Owner::Group(at as u16))));
        }
        for (row, m) in &self.matches {
            nets.extend(selected_nets(&m.from).map(|net| (net, Owner::From(*row as u32))));
            nets.extend(selected_nets(&m.to).map(|net| (net, Owner::To(*row as u32))));
        }
        nets
    }

    fn endpoint(&mut self, owners: &[Owner], sets: &mut SetIndex) -> Endpoint {
        let (mut from, mut to) = (self.arena.blank(), self.arena.blank());
        from.extend(&self.from.any);
        to.extend(&self.to.any);
        let mut groups = Vec::new();
        for owner in owners {
            match owner {
                Owner::Group(group) => {
                    from.extend(&self.from.by_group[usize::from(*group)]);
                    to.extend(&self.to.by_group[usize::from(*group)]);
                    groups.push(*group);
                }
                Owner::From(row) => from.insert(*row as usize),
                Owner::To(row) => to.insert(*row as usize),
            }
        }
        Endpoint { from: self.arena.intern(&from), to: self.arena.intern(&to), set: sets.intern(groups) }
    }

    /// What membership in these groups by something other than the IP address adds.
    fn by_groups(&mut self, mut groups: Vec<u16>, sets: &mut SetIndex) -> Endpoint {
        groups.sort_unstable();
        groups.dedup();
        let (mut from, mut to) = (self.arena.blank(), self.arena.blank());
        for group in &groups {
            from.extend(&self.from.by_group[usize::from(*group)]);
            to.extend(&self.to.by_group[usize::from(*group)]);
        }
        Endpoint { from: self.arena.intern(&from), to: self.arena.intern(&to), set: sets.intern(groups) }
    }

    fn links(&mut self, kinds: &mut Kinds) -> LinkTables {
        let nowhere = Endpoint { from: Bits::NONE, to: Bits::NONE, set: 0 };
        let macs = members(self.groups, |group| &group.macs);
        let macs = macs.into_iter().map(|(mac, groups)| (mac, self.by_groups(groups, &mut kinds.mac))).collect();
        LinkTables {
            macs: Points::new(macs, nowhere),
            vlans: self.segments(|group| &group.vlans, |m| m.vlan, &mut kinds.vlan),
            vnis: self.segments(|group| &group.vnis, |m| m.vni, &mut kinds.vni),
        }
    }

    /// VLANs or VNIs: both memberships of groups and a condition of rules.
    fn segments<K: Copy + Ord>(
        &mut self,
        ids: impl Fn(&Group) -> &Vec<K>,
        condition: impl Fn(&Match) -> Option<K>,
        sets: &mut SetIndex,
    ) -> Points<K, Segment> {
        let mut keys = members(self.groups, ids);
        for (_, m) in &self.matches {
            if let Some(key) = condition(m) {
                keys.entry(key).or_default();
            }
        }
        let mut points = BTreeMap::new();
        for (key, groups) in keys {
            let endpoint = self.by_groups(groups, sets);
            let rows = self.rows_where(|m| condition(m).is_none_or(|wanted| wanted == key));
            points.insert(key, Segment { endpoint, rows });
        }
        let endpoint = Endpoint { from: Bits::NONE, to: Bits::NONE, set: 0 };
        let rows = self.rows_where(|m| condition(m).is_none());
        Points::new(points, Segment { endpoint, rows })
    }

    fn protocols(&mut self) -> Box<[Bits; 256]> {
        let mut table = Box::new([Bits::NONE; 256]);
        for (protocol, bits) in (0u8..=255).zip(table.iter_mut()) {
            *bits = self.rows_where(|m| protocol_fits(m, protocol));
        }
        table
    }

    fn ports(&mut self) -> PortBits {
        PortBits {
            from: self.port_table(|m| &m.from_ports),
            to: self.port_table(|m| &m.to_ports),
            none: self.rows_where(|m| m.from_ports.is_empty() && m.to_ports.is_empty()),
        }
    }

    fn port_table(&mut self, ranges: impl Fn(&Match) -> &Vec<RangeInclusive<u16>>) -> Intervals<u16, Bits> {
        // Edges of ranges: (port, row, opens). A row's ranges may overlap, so open ones are counted.
        let mut edges: Vec<(u32, usize, bool)> = Vec::new();
        let mut open: HashMap<usize, u32> = HashMap::new();
        let mut rows = self.arena.blank();
        for (row, m) in &self.matches {
            if ranges(m).is_empty() {
                rows.insert(*row);
            }
            for range in ranges(m).iter().filter(|range| range.start() <= range.end()) {
                edges.push((u32::from(*range.start()), *row, true));
                edges.push((u32::from(*range.end()) + 1, *row, false));
            }
        }
        edges.sort_unstable();
        let mut steps = vec![(0, self.arena.intern(&rows))];
        for at in edges.chunk_by(|a, b| a.0 == b.0) {
            apply_edges(at, &mut open, &mut rows);
            // An edge at 65536 ends a range that reaches the last port.
            let Ok(port) = u16::try_from(at[0].0) else { break };
            if port == 0 {
                steps.clear();
            }
            steps.push((port, self.arena.intern(&rows)));
        }
        Intervals::new(steps)
    }

    /// Each row has at most one type and one code, so two tables meet in exactly the right rows.
    fn icmp(&mut self) -> IcmpBits {
        let mut tables = IcmpBits {
            types: Box::new([Bits::NONE; 256]),
            codes: Box::new([Bits::NONE; 256]),
            none: self.rows_where(|m| m.icmp.is_none()),
        };
        for value in 0u8..=255 {
            let types = self.rows_where(|m| m.icmp.is_none_or(|(kind, _)| kind == value));
            let codes = self.rows_where(|m| m.icmp.and_then(|(_, code)| code).is_none_or(|code| code == value));
            tables.types[usize::from(value)] = types;
            tables.codes[usize::from(value)] = codes;
        }
        tables
    }
}

fn side<'a>(matches: &[(usize, &'a Match)], groups: usize, selectors: impl Fn(&'a Match) -> &'a Vec<Selector>) -> Side {
    let mut side = Side { any: Vec::new(), by_group: vec![Vec::new(); groups] };
    for (row, m) in matches {
        if selectors(m).is_empty() {
            side.any.push(*row as u32);
        }
        for selector in selectors(m) {
            if let Selector::Group(GroupIx(group)) = selector {
                side.by_group[usize::from(*group)].push(*row as u32);
            }
        }
    }
    side
}

/// Key (MAC, VLAN, VNI) → groups that list it.
fn members<K: Copy + Ord>(groups: &[Group], keys: impl Fn(&Group) -> &Vec<K>) -> BTreeMap<K, Vec<u16>> {
    let mut members: BTreeMap<K, Vec<u16>> = BTreeMap::new();
    for (at, group) in groups.iter().enumerate() {
        for key in keys(group) {
            members.entry(*key).or_default().push(at as u16);
        }
    }
    members
}

fn selected_nets(selectors: &[Selector]) -> impl Iterator<Item = IpNet> {
    selectors.iter().filter_map(|selector| match selector {
        Selector::Net(net) => Some(*net),
        Selector::Group(_) => None,
    })
}

fn range(net: IpNet, owner: Owner) -> Net<Owner> {
    let (first, last) = match net {
        IpNet::V4(net) => (u128::from(u32::from(net.network())), u128::from(u32::from(net.broadcast()))),
        IpNet::V6(net) => (u128::from(net.network()), u128::from(net.broadcast())),
    };
    Net { first, last: Reverse(last), owner }
}

/// The protocol condition, with what port and ICMP conditions imply about the protocol.
fn protocol_fits(m: &Match, protocol: u8) -> bool {
    let has_ports = !m.from_ports.is_empty() || !m.to_ports.is_empty();
    m.protocol.is_none_or(|wanted| wanted == protocol)
        && (!has_ports || WITH_PORTS.contains(&protocol))
        && (m.icmp.is_none() || protocol == ICMP || protocol == ICMPV6)
}

fn apply_edges(edges: &[(u32, usize, bool)], open: &mut HashMap<usize, u32>, rows: &mut RowSet) {
    for (_, row, opens) in edges {
        let count = open.entry(*row).or_insert(0);
        // Edges of one port sort closing before opening, so the count may pass through zero here.
        *count = if *opens { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 { rows.remove(*row) } else { rows.insert(*row) }
    }
}

/// Whether a packet of this protocol has ports that rules may look at.
pub(super) fn has_ports(protocol: u8) -> bool {
    WITH_PORTS.contains(&protocol)
}

/// Whether a packet of this protocol has an ICMP type and code.
pub(super) fn is_icmp(protocol: u8) -> bool {
    protocol == ICMP || protocol == ICMPV6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, matches: Match) -> Rule {
        let (mode, action) = (Mode::Enforce, Action::Deny);
        Rule { id: id.to_owned(), tier: Default::default(), priority: 0, mode, action, stateful: false, matches }
    }

    fn group(name: &str) -> Group {
        Group { name: name.to_owned(), ..Group::default() }
    }

    fn error(policy: &Policy) -> CompileError {
        let labels = Labels::new(2);
        let error = Compiled::build(policy, 1, &labels).expect_err("does not compile");
        assert_eq!(labels.rule_count(), 0, "a failed build leaves no trace");
        error
    }

    #[test]
    fn faulty_policies_do_not_compile() {
        let rules = |ids: &[&str]| ids.iter().map(|id| rule(id, Match::default())).collect();
        let policy = Policy { rules: rules(&["a", "b", "c"]), ..Policy::default() };
        assert_eq!(error(&policy), CompileError::TooManyRules { known: 0, fresh: 3, limit: 2 });
        assert!(error(&policy).to_string().contains("limits.rules"));
        let policy = Policy { rules: rules(&["a", "a"]), ..Policy::default() };
        assert_eq!(error(&policy), CompileError::DuplicateRule { id: "a".to_owned() });
        let policy = Policy { groups: vec![group("g"), group("g")], ..Policy::default() };
        assert_eq!(error(&policy), CompileError::DuplicateGroup { name: "g".to_owned() });
        let mirror = MirrorMatch { any_of: vec![], decisions: vec![] };
        let policy = Policy { mirrors: vec![mirror; MAX_MIRRORS + 1], ..Policy::default() };
        assert_eq!(error(&policy), CompileError::TooManyMirrors { count: 65 });
    }

    #[test]
    fn groups_must_exist() {
        let matches = Match { to: vec![Selector::Group(GroupIx(1))], ..Match::default() };
        let policy = Policy { rules: vec![rule("a", matches.clone())], groups: vec![group("g")], ..Policy::default() };
        assert_eq!(error(&policy), CompileError::UnknownGroup { place: "rule `a`".to_owned(), group: 1, count: 1 });
        let mirrors = vec![MirrorMatch { any_of: vec![matches], decisions: vec![] }];
        let policy = Policy { mirrors, ..Policy::default() };
        let place = "mirror session 0".to_owned();
        assert_eq!(error(&policy), CompileError::UnknownGroup { place, group: 1, count: 0 });
    }

    #[test]
    fn disabled_rules_take_no_number_and_equal_policies_equal_memory() {
        let mut off = rule("off", Match::default());
        off.mode = Mode::Disabled;
        let policy = Policy { rules: vec![off, rule("on", Match::default())], ..Policy::default() };
        let labels = Labels::new(1);
        let first = Compiled::build(&policy, 1, &labels).expect("one rule has an effect");
        let second = Compiled::build(&policy, 2, &labels).expect("the same id again");
        assert_eq!((first.rule_count(), labels.rule_count()), (1, 1));
        assert_eq!(first.memory_bytes(), second.memory_bytes());
        assert_eq!((first.generation(), second.generation()), (1, 2));
    }
}
