//! Flow records → rows: who talked to whom about what, which rule decided, and what is known of it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHasher};

use super::tally::{Tally, bit_of};
use super::vms::Vms;
use crate::packet;
use crate::policy::learning::{Endpoint, Place, Seen, Service};
use crate::rules::Decision;

/// Position of an end in the ends of [`Traffic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndIx(pub u32);

/// Position of a rule's id in the rules of [`Traffic`]; 0 stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleIx(pub u32);

/// One end of a row: all groups of an address, sorted. The address itself only where it is in no group, or where a
/// detector named the flow: then it matters who it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct End {
    pub groups: Vec<Arc<str>>,
    pub net: Option<IpNet>,
    pub vm: Option<Arc<str>>,
}

/// A service in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Talk(u32);

/// What is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub from: EndIx,
    pub to: EndIx,
    pub talk: Talk,
    pub rule: RuleIx,
    pub decision: u8,
}

/// One aggregated record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub key: Key,
    pub tally: Tally,
}

/// What was seen, in as many rows as there are combinations of ends, service and rule.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub(super) ends: Vec<End>,
    end_numbers: FxHashMap<End, EndIx>,
    pub(super) rules: Vec<Arc<str>>,
    rule_numbers: FxHashMap<Arc<str>, RuleIx>,
    pub(super) rows: Vec<Row>,
    /// By the hash of a key; the next free number where two keys share one.
    row_numbers: FxHashMap<u64, u32>,
    pub(super) vms: Vms,
    limit: Limit,
    /// Flows of rows beyond the limit.
    pub overflow: u64,
}

/// How much is kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rows: usize,
    /// Addresses; of more, their /16 (IPv6: /48).
    pub addresses: usize,
}

impl Default for Limit {
    fn default() -> Self {
        Self { rows: 20_000_000, addresses: 200_000 }
    }
}

const WIDE: [u8; 2] = [16, 48];
/// Decisions by their number in [`Key::decision`].
const DECISIONS: [Decision; 3] = [Decision::Allow, Decision::Deny, Decision::Reject];

impl Talk {
    const NUMBERED: u32 = 1 << 16;

    pub fn new(service: &Service) -> Self {
        let number = service.ports.map(|(first, _)| first).or(service.icmp_type.map(u16::from));
        Self(u32::from(service.protocol) << 24 | number.map_or(0, |number| Self::NUMBERED | u32::from(number)))
    }

    pub fn protocol(self) -> u8 {
        (self.0 >> 24) as u8
    }

    pub fn port(self) -> Option<u16> {
        (self.0 & Self::NUMBERED != 0 && packet::has_ports(self.protocol())).then_some(self.0 as u16)
    }

    pub fn icmp_type(self) -> Option<u8> {
        (self.0 & Self::NUMBERED != 0 && packet::is_icmp(self.protocol())).then_some(self.0 as u8)
    }

    pub fn service(self) -> Service {
        let ports = self.port().map(|port| (port, port));
        Service { protocol: self.protocol(), ports, icmp_type: self.icmp_type() }
    }
}

impl Key {
    pub fn decision(self) -> Decision {
        DECISIONS.get(usize::from(self.decision)).copied().unwrap_or_default()
    }

    fn slot(self) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = FxHasher::default();
        Hash::hash(&self, &mut hasher);
        packet::scramble(hasher.finish())
    }
}

impl End {
    /// As a policy names it: a group where it is in any (of several the one with the fewest members), else VM or net.
    pub fn endpoint(&self, size: impl Fn(&str) -> usize) -> Endpoint {
        match (self.groups.iter().min_by_key(|name| (size(name), (*name).clone())), &self.vm, self.net) {
            (Some(group), ..) => Endpoint::Group(group.clone()),
            (None, _, Some(net)) => Endpoint::Net(net),
            (None, Some(vm), None) => Endpoint::Vm(vm.clone()),
            (None, None, None) => Endpoint::Any,
        }
    }

    /// Whether it is one known address, and not any of a group's.
    pub fn is_single(&self) -> bool {
        self.net.is_some_and(|net| net.prefix_len() == net.max_prefix_len())
    }
}

impl Traffic {
    pub fn new(limit: Limit) -> Self {
        let mut rules = Self { limit, ..Self::default() };
        rules.rules.push("".into());
        rules.end_numbers.reserve(16);
        rules
    }

    /// Rows kept.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn end(&self, end: EndIx) -> &End {
        &self.ends[end.0 as usize]
    }

    /// The end that stands for all of an end's groups, if anything else was seen of these; else itself.
    pub(super) fn plain(&self, end: EndIx) -> EndIx {
        let groups = &self.end(end).groups;
        let plain = (!groups.is_empty()).then(|| End { groups: groups.clone(), net: None, vm: None });
        plain.and_then(|plain| self.end_numbers.get(&plain).copied()).unwrap_or(end)
    }

    /// The id of a rule; `None` when none decided.
    pub fn rule(&self, rule: RuleIx) -> Option<&Arc<str>> {
        self.rules.get(rule.0 as usize).filter(|_| rule.0 > 0)
    }

    /// First and last second of all, since 1970.
    pub fn span(&self) -> Option<(u32, u32)> {
        let first = self.rows.iter().map(|row| row.tally.first).min()?;
        Some((first, self.rows.iter().map(|row| row.tally.last).max()?))
    }

    /// The next flow, in any order.
    pub fn observe(&mut self, seen: &Seen) {
        self.vms.observe(seen);
        let [from, to] = [&seen.from, &seen.to].map(|place| self.end_of(place, seen.attack));
        let rule = seen.rule.clone().map_or(RuleIx(0), |id| self.intern_rule(id));
        let decision = DECISIONS.iter().position(|one| *one == seen.decision).unwrap_or(0) as u8;
        let key = Key { from, to, talk: Talk::new(&seen.service), rule, decision };
        self.add(key, &Tally::of(seen));
    }

    /// Adds what is known of a key; the ends and the rule must be of this traffic.
    pub fn add(&mut self, key: Key, tally: &Tally) {
        let mut slot = key.slot();
        while let Some(number) = self.row_numbers.get(&slot) {
            let row = &mut self.rows[*number as usize];
            if row.key == key {
                return row.tally.merge(tally);
            }
            slot = slot.wrapping_add(1);
        }
        if self.rows.len() >= self.limit.rows {
            self.overflow += u64::from(tally.flows);
            return;
        }
        self.row_numbers.insert(slot, self.rows.len() as u32);
        self.rows.push(Row { key, tally: *tally });
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Self) {
        let ends: Vec<EndIx> = other.ends.iter().map(|end| self.intern_end(end.clone())).collect();
        let rules: Vec<RuleIx> = (0..other.rules.len() as u32)
            .map(|rule| other.rule(RuleIx(rule)).cloned().map_or(RuleIx(0), |id| self.intern_rule(id)))
            .collect();
        for row in &other.rows {
            let [from, to] = [row.key.from, row.key.to].map(|end| ends[end.0 as usize]);
            self.add(Key { from, to, rule: rules[row.key.rule.0 as usize], ..row.key }, &row.tally);
        }
        self.vms.merge(&other.vms);
        self.overflow += other.overflow;
    }

    /// Forgets rows that were last seen before a time, in seconds since 1970.
    pub fn forget(&mut self, before: u32) {
        self.rows.retain(|row| row.tally.last >= before);
        let rows = std::mem::take(&mut self.rows);
        self.row_numbers.clear();
        rows.iter().for_each(|row| self.add(row.key, &row.tally));
    }

    fn end_of(&mut self, place: &Place, named: bool) -> EndIx {
        let mut groups = place.groups.clone();
        groups.sort_unstable();
        groups.dedup();
        let alone = groups.is_empty() || named;
        let room = self.ends.len() < self.limit.addresses;
        // Of too many, those in groups are their groups again.
        let net = (alone && (room || groups.is_empty()))
            .then(|| if room { place.address.into() } else { wide(place.address) });
        let vm = if net.is_some() && room { place.vm.clone() } else { None };
        self.intern_end(End { groups, net, vm })
    }

    /// The number of an end, given now if it has none.
    pub fn intern_end(&mut self, end: End) -> EndIx {
        if let Some(number) = self.end_numbers.get(&end) {
            return *number;
        }
        let number = EndIx(self.ends.len() as u32);
        self.ends.push(end.clone());
        self.end_numbers.insert(end, number);
        number
    }

    /// The number of a rule's id, given now if it has none.
    pub fn intern_rule(&mut self, id: Arc<str>) -> RuleIx {
        if self.rules.is_empty() {
            self.rules.push("".into());
        }
        if let Some(number) = self.rule_numbers.get(&id) {
            return *number;
        }
        let number = RuleIx(self.rules.len() as u32);
        self.rules.push(id.clone());
        self.rule_numbers.insert(id, number);
        number
    }

    /// The bit that stands for a name among [`Tally::clients`] and [`Tally::servers`].
    pub fn bit(name: &str) -> u64 {
        bit_of(name)
    }
}

fn wide(address: IpAddr) -> IpNet {
    let width = if address.is_ipv4() { WIDE[0] } else { WIDE[1] };
    IpNet::new(address, width).map_or(address.into(), |net| net.trunc())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::policy::learning::Answer;
    use crate::rules::Tier;

    pub const DAY: u64 = 86_400 * 1_000_000_000;

    pub fn place(address: &str, groups: &[&str]) -> Place {
        let vm = groups.first().map(|_| format!("vm-{address}").into());
        Place { address: address.parse().unwrap(), vm, groups: groups.iter().map(|g| (*g).into()).collect() }
    }

    /// One flow of a day; denied by default unless a rule is named.
    pub fn flow(from: Place, to: Place, port: u16, day: u64, rule: Option<&str>) -> Seen {
        let allowed = rule.is_some();
        Seen {
            flow_id: day * 1000 + u64::from(port),
            start: (20_000 + day) * DAY,
            end: (20_000 + day) * DAY + 5_000_000_000,
            from,
            to,
            service: Service::of_port(6, port),
            answer: if allowed { Answer::Answered } else { Answer::Denied },
            bytes: 1000,
            packets: 10,
            rule: rule.map(Arc::from),
            tier: if allowed { Tier::Policy } else { Tier::Default },
            decision: if allowed { Decision::Allow } else { Decision::Deny },
            attack: false,
            score: Some(0.25),
        }
    }

    #[test]
    fn flows_of_one_connection_and_rule_are_one_row() {
        let mut traffic = Traffic::new(Limit::default());
        for vm in 1..=3 {
            for day in 0..4 {
                traffic.observe(&flow(
                    place(&format!("10.0.0.{vm}"), &["web"]),
                    place("10.1.0.1", &["app"]),
                    80,
                    day,
                    None,
                ));
            }
        }
        traffic.observe(&flow(place("10.0.0.1", &["web"]), place("10.1.0.1", &["app"]), 80, 4, Some("r")));
        let [denied, allowed] = traffic.rows() else { panic!("{} rows", traffic.len()) };
        assert_eq!((denied.tally.flows, denied.tally.answered, denied.tally.day_count()), (12, 0, 4));
        assert_eq!((denied.tally.client_count(), denied.tally.server_count()), (3, 1));
        assert_eq!((denied.key.decision(), allowed.key.decision()), (Decision::Deny, Decision::Allow));
        assert_eq!((allowed.tally.answered, traffic.rule(allowed.key.rule).map(|r| &**r)), (1, Some("r")));
        assert!((denied.tally.mean_score().unwrap() - 0.25).abs() < 1e-3);
    }

    #[test]
    fn attackers_and_strangers_are_told_apart_up_to_a_limit() {
        let mut traffic = Traffic::new(Limit { rows: 100, addresses: 3 });
        let attack =
            Seen { attack: true, ..flow(place("10.0.0.9", &["web"]), place("10.1.0.1", &["app"]), 80, 1, None) };
        traffic.observe(&attack);
        assert!(traffic.end(traffic.rows()[0].key.from).is_single());
        for n in 1..9 {
            traffic.observe(&flow(place(&format!("192.0.2.{n}"), &[]), place("10.1.0.1", &["app"]), 80, 1, None));
        }
        let widest = traffic.ends.iter().filter_map(|end| end.net).map(|net| net.prefix_len()).min();
        assert_eq!((traffic.len(), widest), (3, Some(16)), "{:?}", traffic.ends);
    }

    #[test]
    fn parts_make_the_whole_in_any_order() {
        let flows: Vec<Seen> = (0..60u64)
            .map(|n| {
                let from = place(&format!("10.0.0.{}", n % 7), &["web"]);
                Seen {
                    flow_id: n * 77,
                    score: Some(n as f64 / 60.0),
                    ..flow(from, place("10.1.0.1", &["app"]), 80 + (n % 3) as u16, n % 5, None)
                }
            })
            .collect();
        let of = |flows: &[Seen]| {
            let mut traffic = Traffic::new(Limit::default());
            flows.iter().for_each(|flow| traffic.observe(flow));
            traffic
        };
        let sorted = |traffic: &Traffic| {
            let mut rows = traffic.rows.clone();
            rows.sort_by_key(|row| row.key.talk);
            rows
        };
        let whole = of(&flows);
        let mut merged = of(&flows[40..]);
        merged.merge(&of(&flows[..40]));
        let rows = |traffic: &Traffic| sorted(traffic).iter().map(|row| row.tally).collect::<Vec<_>>();
        assert_eq!(rows(&merged), rows(&whole));
        merged.forget(u32::MAX);
        assert!(merged.is_empty());
    }
}
