//! How rules lie to each other: whether one holds all of another, and whether they can meet.
//!
//! Groups are known by their networks; two groups of which nothing is known are taken to be apart.

use ipnet::IpNet;

use super::change::Draft;
use super::standing::{Rulebook, Standing};
use crate::policy::learning::Endpoint;
use crate::rules::Decision;

/// The conditions of a rule or a draft.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    pub from: &'a [Endpoint],
    pub to: &'a [Endpoint],
    pub protocol: Option<u8>,
    pub ports: &'a [(u16, u16)],
    pub icmp_type: Option<u8>,
}

impl<'a> From<&'a Standing> for Conditions<'a> {
    fn from(rule: &'a Standing) -> Self {
        Self { from: &rule.from, to: &rule.to, protocol: rule.protocol, ports: &rule.ports, icmp_type: rule.icmp_type }
    }
}

impl<'a> From<&'a Draft> for Conditions<'a> {
    fn from(draft: &'a Draft) -> Self {
        Self {
            from: &draft.from,
            to: &draft.to,
            protocol: draft.protocol,
            ports: &draft.ports,
            icmp_type: draft.icmp_type,
        }
    }
}

impl Conditions<'_> {
    /// Holds all that the other one holds, for certain.
    pub fn covers(&self, other: &Self, book: &Rulebook) -> bool {
        let within = |(first, last): &(u16, u16)| self.ports.iter().any(|(from, to)| from <= first && last <= to);
        self.protocol.is_none_or(|protocol| other.protocol == Some(protocol))
            && (self.ports.is_empty() || (!other.ports.is_empty() && other.ports.iter().all(within)))
            && (self.icmp_type.is_none() || self.icmp_type == other.icmp_type)
            && ends_cover(self.from, other.from, book)
            && ends_cover(self.to, other.to, book)
    }

    /// Something can match both.
    pub fn meets(&self, other: &Self, book: &Rulebook) -> bool {
        let protocols = self.protocol.is_none() || other.protocol.is_none() || self.protocol == other.protocol;
        let touch = |(a, b): &(u16, u16)| other.ports.iter().any(|(c, d)| a <= d && c <= b);
        let ports = self.ports.is_empty() || other.ports.is_empty() || self.ports.iter().any(touch);
        let types = self.icmp_type.is_none() || other.icmp_type.is_none() || self.icmp_type == other.icmp_type;
        protocols && ports && types && ends_meet(self.from, other.from, book) && ends_meet(self.to, other.to, book)
    }
}

fn ends_cover(outer: &[Endpoint], inner: &[Endpoint], book: &Rulebook) -> bool {
    let any = |ends: &[Endpoint]| ends.is_empty() || ends.contains(&Endpoint::Any);
    any(outer) || (!any(inner) && inner.iter().all(|one| outer.iter().any(|wide| covers(wide, one, book))))
}

fn covers(outer: &Endpoint, inner: &Endpoint, book: &Rulebook) -> bool {
    match (outer, inner) {
        (Endpoint::Any, _) => true,
        (Endpoint::Net(net), Endpoint::Net(inner)) => net.contains(inner),
        (Endpoint::Net(net), Endpoint::Group(name)) => {
            let nets = nets(name, book);
            !nets.is_empty() && nets.iter().all(|inner| net.contains(inner))
        }
        (Endpoint::Group(name), Endpoint::Net(net)) => nets(name, book).iter().any(|outer| outer.contains(net)),
        _ => outer == inner,
    }
}

fn ends_meet(a: &[Endpoint], b: &[Endpoint], book: &Rulebook) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|one| b.iter().any(|other| meet(one, other, book)))
}

fn meet(a: &Endpoint, b: &Endpoint, book: &Rulebook) -> bool {
    let touch = |one: &IpNet, others: &[IpNet]| others.iter().any(|other| one.contains(other) || other.contains(one));
    match (a, b) {
        (Endpoint::Any, _) | (_, Endpoint::Any) => true,
        (Endpoint::Net(a), Endpoint::Net(b)) => touch(a, &[*b]),
        (Endpoint::Net(net), Endpoint::Group(name)) | (Endpoint::Group(name), Endpoint::Net(net)) => {
            touch(net, nets(name, book))
        }
        (Endpoint::Group(a), Endpoint::Group(b)) => a == b || nets(a, book).iter().any(|net| touch(net, nets(b, book))),
        _ => a == b,
    }
}

fn nets<'a>(group: &str, book: &'a Rulebook) -> &'a [IpNet] {
    book.groups.get(group).map(|members| members.nets.as_slice()).unwrap_or_default()
}

/// Rules that decide otherwise and meet a draft, in evaluation order; up to `most`.
pub fn contradictions<'a>(draft: &Draft, rules: &[&'a Standing], book: &Rulebook, most: usize) -> Vec<&'a Standing> {
    let decision = if draft.action == crate::rules::Action::Allow { Decision::Allow } else { Decision::Deny };
    let own = Conditions::from(draft);
    let differs = |rule: &Standing| (rule.decision() == Decision::Allow) != (decision == Decision::Allow);
    let all = rules.iter().filter(|rule| differs(rule) && *rule.id != *draft.id);
    all.filter(|rule| own.meets(&Conditions::from(**rule), book)).take(most).copied().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::policy::suggest::Members;

    fn book() -> Rulebook {
        let group =
            |name: &str, net: &str| (name.into(), Members { nets: vec![net.parse().unwrap()], tags: Vec::new() });
        Rulebook {
            groups: [group("web", "10.0.0.0/24"), group("app", "10.0.1.0/24"), group("near", "10.0.1.4/32")].into(),
            ..Rulebook::default()
        }
    }

    #[test]
    fn wider_holds_narrower_and_strangers_do_not_meet() {
        let book = book();
        let [any, web, app, near] =
            [vec![], vec![Endpoint::group("web")], vec![Endpoint::group("app")], vec![Endpoint::group("near")]];
        let net = vec![Endpoint::Net("10.0.0.0/16".parse().unwrap())];
        fn rule<'a>(from: &'a [Endpoint], ports: &'a [(u16, u16)]) -> Conditions<'a> {
            Conditions { from, to: &[], protocol: Some(6), ports, icmp_type: None }
        }
        let holds = |a: &Conditions<'_>, b: &Conditions<'_>| (a.covers(b, &book), a.meets(b, &book));
        assert_eq!(holds(&rule(&any, &[]), &rule(&web, &[(80, 80)])), (true, true));
        assert_eq!(holds(&rule(&web, &[(80, 80)]), &rule(&any, &[])), (false, true));
        assert_eq!(holds(&rule(&net, &[(1, 99)]), &rule(&web, &[(80, 80)])), (true, true));
        assert_eq!(holds(&rule(&web, &[]), &rule(&app, &[])), (false, false));
        assert_eq!(holds(&rule(&app, &[]), &rule(&near, &[])), (false, true));
        assert_eq!(holds(&rule(&web, &[(1, 79)]), &rule(&web, &[(80, 80)])), (false, false));
        let udp = Conditions { protocol: Some(17), ..rule(&web, &[]) };
        assert_eq!(holds(&rule(&web, &[]), &udp), (false, false));
    }
}
