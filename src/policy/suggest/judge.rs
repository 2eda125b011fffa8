//! Which rule decides a row, now and after a change.
//!
//! A row of a group does not tell the addresses behind it, nor VLANs or source ports. Where a rule depends on these, what
//! was recorded settles it: the rule holds for the row if it is the one that decided then, else it does not.

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::change::Draft;
use super::standing::{Rulebook, Standing};
use super::traffic::{End, EndIx, Row, Talk, Traffic};
use crate::policy::learning::Endpoint;
use crate::rules::Decision;

/// Whether a condition holds, as far as a row tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    No,
    Maybe,
    Yes,
}

/// Number of a rule in evaluation order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rank(pub u32);

impl Rank {
    /// No rule decides.
    pub const DEFAULT: Self = Self(u32::MAX);
}

/// Rules in evaluation order, with what finds them quickly.
#[derive(Debug)]
pub struct Judge<'a> {
    traffic: &'a Traffic,
    book: &'a Rulebook,
    order: Vec<&'a Standing>,
    by_group: FxHashMap<&'a str, Vec<u32>>,
    by_target: FxHashMap<&'a str, Vec<u32>>,
    /// Those that name something else than groups as their source.
    others: Vec<u32>,
    /// Likewise of the target, by rank.
    has_other_target: Vec<bool>,
    /// Of the rules that were recorded, the rank; by [`RuleIx`](super::traffic::RuleIx).
    recorded: Vec<Rank>,
}

/// Rules that can hold between two ends, remembered.
#[derive(Debug, Default)]
pub struct Pairs(FxHashMap<(EndIx, EndIx), Between>);

type Between = Box<[(u32, bool)]>;

impl<'a> Judge<'a> {
    pub fn new(traffic: &'a Traffic, book: &'a Rulebook) -> Self {
        let mut order: Vec<&Standing> = book.rules.iter().filter(|rule| rule.acts()).collect();
        order.sort_by(|a, b| a.order().cmp(&b.order()));
        let mut by_group: FxHashMap<&str, Vec<u32>> = FxHashMap::default();
        let mut by_target: FxHashMap<&str, Vec<u32>> = FxHashMap::default();
        let (mut others, mut has_other_target) = (Vec::new(), Vec::new());
        for (rank, rule) in (0..).zip(&order) {
            let groups =
                rule.to.iter().filter_map(|end| if let Endpoint::Group(name) = end { Some(name) } else { None });
            let mut named = 0;
            groups.for_each(|name| {
                named += 1;
                by_target.entry(&**name).or_default().push(rank);
            });
            has_other_target.push(rule.to.is_empty() || named < rule.to.len());
            let mut elsewhere = rule.from.is_empty();
            for end in &rule.from {
                match end {
                    Endpoint::Group(name) => by_group.entry(&**name).or_default().push(rank),
                    _ => elsewhere = true,
                }
            }
            if elsewhere {
                others.push(rank);
            }
        }
        let ranks: FxHashMap<&str, u32> = (0..).zip(&order).map(|(rank, rule)| (&*rule.id, rank)).collect();
        let rank = |id: &str| ranks.get(id).map_or(Rank::DEFAULT, |rank| Rank(*rank));
        let recorded = traffic.rules.iter().map(|id| rank(id)).collect();
        Self { traffic, book, order, by_group, by_target, others, has_other_target, recorded }
    }

    /// The acting rules, in evaluation order.
    pub fn order(&self) -> &[&'a Standing] {
        &self.order
    }

    pub fn rule(&self, rank: Rank) -> Option<&'a Standing> {
        self.order.get(rank.0 as usize).copied()
    }

    pub fn decision(&self, rank: Rank) -> Decision {
        self.rule(rank).map_or(self.book.default, Standing::decision)
    }

    /// The rule that decides a row now, leaving some out.
    pub fn decide(&self, row: &Row, pairs: &mut Pairs, gone: &[Rank]) -> Rank {
        let ends = (row.key.from, row.key.to);
        let between =
            pairs.0.entry(ends).or_insert_with(|| self.between(self.traffic.end(ends.0), self.traffic.end(ends.1)));
        self.first(between, row, gone)
    }

    /// As [`Judge::decide`], were the ends other ones.
    pub fn decide_as(&self, row: &Row, from: &End, to: &End) -> Rank {
        self.first(&self.between(from, to), row, &[])
    }

    fn first(&self, between: &[(u32, bool)], row: &Row, gone: &[Rank]) -> Rank {
        let recorded = self.recorded.get(row.key.rule.0 as usize).copied().unwrap_or(Rank::DEFAULT);
        let holds = |&&(rank, certain): &&(u32, bool)| {
            let rule = self.order[rank as usize];
            let service = talk_holds(rule.protocol, &rule.ports, rule.icmp_type, row.key.talk);
            let sure = certain && !rule.has_more;
            service && (sure || recorded == Rank(rank)) && !gone.contains(&Rank(rank))
        };
        between.iter().find(holds).map_or(Rank::DEFAULT, |(rank, _)| Rank(*rank))
    }

    /// Ranks of the rules that can hold between two ends, in order.
    fn between(&self, from: &End, to: &End) -> Box<[(u32, bool)]> {
        let sources = from.groups.iter().filter_map(|group| self.by_group.get(&**group)).flatten();
        let mut ranks: Vec<u32> = sources.chain(&self.others).copied().collect();
        ranks.sort_unstable();
        ranks.dedup();
        // Most rules name groups on both sides: those that do not name the target are out without a look.
        let mut targets: Vec<u32> =
            to.groups.iter().filter_map(|group| self.by_target.get(&**group)).flatten().copied().collect();
        targets.sort_unstable();
        let is_target = |rank: &u32| self.has_other_target[*rank as usize] || targets.binary_search(rank).is_ok();
        let held = ranks.into_iter().filter(is_target).filter_map(|rank| {
            let rule = self.order[rank as usize];
            let holds = self.end_holds(&rule.from, from).min(self.end_holds(&rule.to, to));
            (holds != Holds::No).then_some((rank, holds == Holds::Yes))
        });
        held.collect()
    }

    /// Ranks of rules whose source could hold that of a rule, in order.
    pub fn near(&self, rule: &Standing) -> Vec<u32> {
        let first = rule.from.iter().filter_map(|end| match end {
            Endpoint::Group(name) => self.by_group.get(&**name),
            _ => None,
        });
        let mut ranks: Vec<u32> = first.take(1).flatten().chain(&self.others).copied().collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }

    /// Whether a rule's conditions hold for a row for certain, whatever comes before it.
    pub fn rule_holds(&self, rule: &Standing, row: &Row) -> bool {
        self.draft_holds(&Draft::moved(rule, rule.priority), row)
    }

    /// Whether a rule that is not there yet would hold for a row. Where that is not sure, it is taken not to: what is
    /// known of single addresses is in rows of their own.
    pub fn draft_holds(&self, draft: &Draft, row: &Row) -> bool {
        let [from, to] = [row.key.from, row.key.to].map(|end| self.traffic.end(end));
        talk_holds(draft.protocol, &draft.ports, draft.icmp_type, row.key.talk)
            && self.end_holds(&draft.from, from) == Holds::Yes
            && self.end_holds(&draft.to, to) == Holds::Yes
    }

    /// Whether any of some endpoints holds an end.
    pub fn end_holds(&self, any_of: &[Endpoint], end: &End) -> Holds {
        if any_of.is_empty() {
            return Holds::Yes;
        }
        any_of.iter().map(|one| self.one_holds(one, end)).max().unwrap_or(Holds::No)
    }

    fn one_holds(&self, one: &Endpoint, end: &End) -> Holds {
        match one {
            Endpoint::Any => Holds::Yes,
            Endpoint::Group(name) if end.groups.contains(name) => Holds::Yes,
            Endpoint::Group(_) => Holds::No,
            Endpoint::Vm(name) => match &end.vm {
                Some(vm) if vm == name => Holds::Yes,
                None if end.net.is_none() => Holds::Maybe,
                _ => Holds::No,
            },
            Endpoint::Net(net) => match end.net {
                Some(inner) if net.contains(&inner) => Holds::Yes,
                Some(inner) if inner.contains(net) => Holds::Maybe,
                Some(_) => Holds::No,
                None => self.members_in(end, net),
            },
        }
    }

    /// Whether the members of all groups of an end are in a network.
    fn members_in(&self, end: &End, net: &IpNet) -> Holds {
        let mut answer = Holds::Maybe;
        for members in end.groups.iter().filter_map(|group| self.book.groups.get(group)).filter(|m| !m.nets.is_empty())
        {
            let touches = |inner: &&IpNet| net.contains(*inner) || inner.contains(net);
            if members.nets.iter().all(|inner| net.contains(inner)) {
                answer = Holds::Yes;
            } else if !members.nets.iter().any(|inner| touches(&inner)) {
                return Holds::No;
            }
        }
        answer
    }
}

/// Whether the conditions on protocol, ports and message hold.
pub fn talk_holds(protocol: Option<u8>, ports: &[(u16, u16)], icmp_type: Option<u8>, talk: Talk) -> bool {
    let port = |port: u16| ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
    protocol.is_none_or(|protocol| protocol == talk.protocol())
        && (ports.is_empty() || talk.port().is_some_and(port))
        && (icmp_type.is_none() || icmp_type == talk.icmp_type())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::packet::Tuple;
    use crate::policy::learning::{Place, Seen};
    use crate::policy::suggest::Limit;
    use crate::policy::suggest::traffic::tests::{flow, place};
    use crate::rules::{Policy, Subject, oracle};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    const RULES: &str = r#"
        [[port]]
        name = "a"
        device = "net_null0"
        [[port]]
        name = "b"
        device = "net_null1"
        [[pair]]
        ports = ["a", "b"]
    "#;

    /// A policy of four groups, of which two overlap, and some rules.
    fn book(rules: &[(usize, usize, usize, bool, u32)]) -> crate::config::Config {
        const ENDS: [&str; 7] =
            ["\"a0\"", "\"a1\"", "\"a2\"", "\"a3\"", "\"any\"", "\"10.0.1.0/30\"", "\"10.0.0.0/22\""];
        const TALKS: [&str; 4] =
            ["", "protocol = \"tcp\"", "protocol = \"tcp\"\nports = [80, \"90-92\"]", "protocol = \"udp\"\nports = 53"];
        let mut text = RULES.to_owned();
        for (n, net) in ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.1.0/29"].iter().enumerate() {
            text += &format!("[[group]]\nname = \"a{n}\"\ncidrs = [\"{net}\"]\n");
        }
        for (n, (from, to, talk, allow, priority)) in rules.iter().enumerate() {
            let action = if *allow { "allow" } else { "deny" };
            let (from, to, talk) = (ENDS[from % 7], ENDS[to % 7], TALKS[talk % 4]);
            text += &format!(
                "[[rule]]\nid = \"r{n}\"\nfrom = {from}\nto = {to}\n{talk}\naction = \"{action}\"\npriority = {priority}\n"
            );
        }
        text += "[policy]\ndefault = \"deny\"\n";
        crate::config::parse(&text, "test").unwrap()
    }

    fn at(policy: &Policy, address: Ipv4Addr) -> Place {
        let names: Vec<&str> = policy
            .groups
            .iter()
            .filter(|g| g.nets.iter().any(|n| n.contains(&IpAddr::V4(address))))
            .map(|g| g.name.as_str())
            .collect();
        place(&address.to_string(), &names)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What is recorded of flows that the rules' definition judged is judged the same.
        #[test]
        fn rows_are_judged_as_the_definition_says(
            rules in prop::collection::vec((0usize..7, 0usize..7, 0usize..4, any::<bool>(), 0u32..4), 1..9),
            flows in prop::collection::vec((0u8..4, 0u8..12, 0u8..4, 0u8..12, 0usize..4, any::<bool>()), 1..30),
        ) {
            let config = book(&rules);
            let policy = &config.policy;
            let mut traffic = Traffic::new(Limit::default());
            let mut decisions = Vec::new();
            for (a, b, c, d, port, attack) in flows {
                let [from, to] = [Ipv4Addr::new(10, 0, a, b), Ipv4Addr::new(10, 0, c, d)];
                let port = [80, 91, 53, 4000][port];
                let subject = Subject { tuple: tuple(from, to, port), ports_known: true, ..Subject::default() };
                let order = oracle::evaluation_order(policy);
                let first = order.into_iter().find(|rule| oracle::matches(policy, &rule.matches, &subject));
                let decision = first.and_then(|rule| oracle::decision_of(rule.action)).unwrap_or(policy.default);
                let rule = first.map(|rule| rule.id.as_str());
                let seen = flow(at(policy, from), at(policy, to), port, 1, rule);
                let before = traffic.len();
                traffic.observe(&Seen { decision, attack, ..seen });
                if traffic.len() > before {
                    decisions.push((decision, rule.map(str::to_owned)));
                }
            }
            let book = Rulebook::of_config(&config);
            let judge = Judge::new(&traffic, &book);
            let mut pairs = Pairs::default();
            for (row, (decision, rule)) in traffic.rows().iter().zip(decisions) {
                let rank = judge.decide(row, &mut pairs, &[]);
                prop_assert_eq!(judge.decision(rank), decision);
                prop_assert_eq!(judge.rule(rank).map(|r| r.id.to_string()), rule);
            }
        }
    }

    fn tuple(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Tuple {
        let text = format!("tcp {from}:40000 > {to}:{port}");
        crate::rules::parse_flow(&text).unwrap().tuple
    }

    #[test]
    fn what_a_row_does_not_tell_is_taken_from_the_record() {
        let mut traffic = Traffic::new(Limit::default());
        traffic.observe(&flow(place("10.0.1.1", &["a1"]), place("10.0.2.1", &["a2"]), 80, 1, Some("r0")));
        traffic.observe(&flow(place("10.0.1.9", &["a1"]), place("10.0.2.1", &["a2"]), 81, 1, None));
        let book = Rulebook::of_config(&book(&[(5, 2, 1, true, 1)]));
        let judge = Judge::new(&traffic, &book);
        let decided = |row: usize| judge.decision(judge.decide(&traffic.rows()[row], &mut Pairs::default(), &[]));
        assert_eq!((decided(0), decided(1)), (Decision::Allow, Decision::Deny));
        let end = traffic.end(traffic.rows()[0].key.from);
        assert_eq!(judge.end_holds(&[Endpoint::Net("10.0.1.0/30".parse().unwrap())], end), Holds::Maybe);
        assert_eq!(judge.end_holds(&[Endpoint::Net("10.0.0.0/16".parse().unwrap())], end), Holds::Yes);
        assert_eq!(judge.end_holds(&[Endpoint::Net("10.9.0.0/16".parse().unwrap())], end), Holds::No);
    }
}
