//! Second check: what the tables mean together. Collects all errors; on each, goes on with something harmless, so
//! the result is only good when there were none.

mod adaptive;
mod api;
mod detect;
mod export;
mod filter;
mod groups;
mod ipfix;
mod mirrors;
mod names;
mod ports;
mod rules;
mod settings;
mod targets;
mod wraps;

use super::document::Place;
use super::model::{Config, Export};
use super::problem::Problems;
use super::raw::{NonIp, RawPolicy};
use super::shape::Shaped;
use crate::rules::{Decision, Policy};

/// The configuration; valid when `problems` has no errors afterwards.
pub(super) fn resolve(problems: &mut Problems<'_>, mut shaped: Shaped) -> Config {
    let mut settings = settings::resolve(problems, &mut shaped);
    let ports = ports::resolve(problems, &mut shaped, &settings.eal);
    let vms = groups::vms(problems, &mut shaped);
    let groups = groups::groups(problems, &mut shaped, &vms);
    settings.scorer.detect.exceptions = detect::exceptions(problems, &mut shaped, &groups, &vms);
    let rules = rules::resolve(problems, &mut shaped, &groups, &vms, &settings);
    let targets = targets::resolve(problems, &mut shaped, &ports);
    let world = mirrors::World { groups: &groups, vms: &vms, targets: &targets, ports: &ports, rules: &rules };
    let mirrors = mirrors::resolve(problems, &mut shaped, &world, settings.flow.key_from);
    let (honeypots, names) = adaptive::honeypots(problems, &mut shaped, &ports);
    let of_mirrors: Vec<_> = mirrors.iter().map(|(session, _)| session).collect();
    let adaptive = adaptive::adaptive(problems, &mut shaped, &names, &of_mirrors);
    ports.warn_unused(problems, &mirrors, &honeypots);
    let raw: RawPolicy = shaped.section(problems, "policy");
    let default = default_decision(problems, &shaped, &raw);
    let (sessions, matches) = mirrors.into_iter().unzip();
    Config {
        cores: settings.cores,
        eal: settings.eal,
        ports: ports.ports,
        pairs: ports.pairs,
        vms: vms.vms,
        policy: Policy { groups: groups.groups, rules, mirrors: matches, default },
        non_ip: match raw.non_ip {
            NonIp::Allow => Decision::Allow,
            NonIp::Deny => Decision::Deny,
        },
        live_flows: raw.live_flows,
        mirrors: sessions,
        honeypots,
        flow: settings.flow,
        scorer: settings.scorer,
        store: settings.store,
        export: Export { decisions: adaptive.is_some(), ..settings.export },
        adaptive,
        control: settings.control,
        ipfix: ipfix::resolve(problems, &mut shaped),
        metrics: settings.metrics,
        api: api::resolve(problems, &mut shaped),
        limits: settings.limits,
        seed: settings.seed,
        source: None,
    }
}

/// With rules in the file, nobody should have to guess what happens to the rest.
fn default_decision(problems: &mut Problems<'_>, shaped: &Shaped, raw: &RawPolicy) -> Decision {
    let policy = Place::root().key("policy");
    let place = policy.key("default");
    let first_rule = Place::root().key("rule").index(0);
    if raw.default.is_none()
        && problems.document.contains(&first_rule)
        && !shaped.touched(&place)
        && !shaped.is_wrong(&policy)
    {
        let at = if problems.document.contains(&policy) { &policy } else { &first_rule };
        let problem = problems.error(at, "the file has rules but does not say what happens to packets no rule decides");
        problem.field = place.to_string();
        problem.allowed("[policy] with default = \"deny\", \"allow\" or \"reject\"");
    }
    raw.default.unwrap_or_default()
}
