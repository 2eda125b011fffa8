//! The rules that a policy comes to.

use serde::Serialize;
use utoipa::ToSchema;

use super::common::{VIEW, view};
use crate::api::call::{Answer, Call};
use crate::api::cursor::{Cut, Page};
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;
use crate::policy::book::Name;
use crate::policy::service::View;
use crate::rules::{Rule, Selector, protocol_name};

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rule)]
struct Shown {
    id: String,
    /// Groups and networks; empty: any.
    from: Vec<String>,
    to: Vec<String>,
    /// By name or number; left out: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    protocol: Option<String>,
    /// Destination ports; empty: any.
    ports: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    from_ports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    vlan: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    vni: Option<u32>,
    #[schema(value_type = String)]
    action: crate::rules::Action,
    priority: u32,
    tier: &'static str,
    #[schema(value_type = String)]
    mode: crate::rules::Mode,
    /// Replies pass without a rule of their own.
    stateful: bool,
    /// What it is from.
    origin: Name,
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    let about = "They are changed by what they are from: relationships, learned policies, profiles, overrides.";
    vec![
        Endpoint::new(Method::Get, "/rules", "list_rule", list)
            .summary("rules", "All rules that the policy comes to, in the order of their ids")
            .about(about)
            .query(&[&VIEW])
            .pages::<Shown>(),
        Endpoint::new(Method::Get, "/rules/{name}", "get_rule", get)
            .summary("rules", "One rule by its id")
            .query(&[&VIEW])
            .gives::<Shown>(),
    ]
}

fn list(world: &World, call: &Call) -> Result<Answer, Problem> {
    let (cut, view) = (Cut::of(call)?, view(call));
    let rules = world.service.rules(view, cut.after.as_deref(), cut.limit + 1);
    let Page { items, next } = cut.page(rules, |(rule, _)| rule.id.clone());
    let items: Vec<Shown> = items.into_iter().map(|(rule, origin)| shown(world, view, rule, origin)).collect();
    Answer::json(&Page { items, next })
}

fn get(world: &World, call: &Call) -> Result<Answer, Problem> {
    let (id, view) = (call.part("name"), view(call));
    let found = world.service.rule(id, view);
    let (rule, origin) = found.ok_or_else(|| Problem::not_found(format!("there is no rule `{id}`")))?;
    Answer::json(&shown(world, view, rule, origin))
}

fn shown(world: &World, view: View, rule: Rule, origin: Name) -> Shown {
    let side = |selectors: &[Selector]| selectors.iter().map(|selector| end(world, view, selector)).collect();
    let ports = |ranges: &[std::ops::RangeInclusive<u16>]| {
        let text = |range: &std::ops::RangeInclusive<u16>| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        ranges.iter().map(text).collect()
    };
    let matches = rule.matches;
    Shown {
        from: side(&matches.from),
        to: side(&matches.to),
        protocol: matches.protocol.map(protocol_name),
        ports: ports(&matches.to_ports),
        from_ports: ports(&matches.from_ports),
        icmp_type: matches.icmp.map(|(kind, _)| kind),
        icmp_code: matches.icmp.and_then(|(_, code)| code),
        vlan: matches.vlan,
        vni: matches.vni,
        action: rule.action,
        priority: rule.priority,
        tier: rule.tier.name(),
        mode: rule.mode,
        stateful: rule.stateful,
        id: rule.id,
        origin,
    }
}

fn end(world: &World, view: View, selector: &Selector) -> String {
    match selector {
        // The policy may have changed since the rule was read.
        Selector::Group(at) => world.service.group_name(*at, view).unwrap_or_default(),
        Selector::Net(net) => net.to_string(),
    }
}
