//! VMs that belong elsewhere by what they do.

use super::{Generator, count};
use crate::policy::suggest::change::Change;
use crate::policy::suggest::membership::Stranger;
use crate::policy::suggest::scene::Scene;
use crate::policy::suggest::suggestion::{Candidate, Confidence, Evidence, Kind, saturating};

#[derive(Debug)]
pub struct Membership;

impl Generator for Membership {
    fn propose(&self, scene: &Scene<'_>) -> Vec<Candidate> {
        scene.strangers.iter().map(|one| candidate(scene, one)).collect()
    }
}

fn candidate(scene: &Scene<'_>, one: &Stranger) -> Candidate {
    let tags = |group: &str| scene.book.groups.get(group).map(|members| members.tags.clone()).unwrap_or_default();
    let has = scene.book.vms.get(&one.vm).cloned().unwrap_or_default();
    let add: Vec<String> = tags(&one.to).into_iter().filter(|tag| !has.contains(tag)).collect();
    let mut remove: Vec<String> =
        one.from.iter().flat_map(|group| tags(group)).filter(|tag| has.contains(tag)).collect();
    remove.retain(|tag| !tags(&one.to).contains(tag));
    let stability = f64::from(one.days) / scene.days().ceil().min(7.0);
    let refused = f64::from(one.denied) / f64::from(one.flows.max(1));
    let agreement = (one.other - one.own).clamp(0.0, 1.0).sqrt() * saturating(one.peers as f64, 0.5);
    let parts = [saturating(one.flows.into(), 20.0), stability, 0.5 + 0.5 * refused, one.other.max(0.5), agreement];
    let own = match one.from.as_slice() {
        [] => "it is in no group".to_owned(),
        groups => format!("its own group {} ({:.0} %)", groups.join(" "), 100.0 * one.own),
    };
    Candidate {
        kind: Kind::Move,
        about: format!("{} in {}", one.vm, one.to),
        change: Change::Move {
            vm: one.vm.clone(),
            from: one.from.clone(),
            to: one.to.clone(),
            add_tags: add,
            remove_tags: remove,
        },
        confidence: Confidence::of(parts),
        reason: format!(
            "{} behaves like the {} of {} ({:.0} % alike) and not like {own}; {} of its {} flows are refused.",
            one.vm,
            count(one.peers as u64, "VM"),
            one.to,
            100.0 * one.other,
            one.denied,
            one.flows
        ),
        evidence: Evidence {
            flows: one.flows.into(),
            days: one.days,
            clients: 1,
            servers: 1,
            first: u64::from(scene.span.0) * 1_000_000_000,
            last: u64::from(scene.span.1) * 1_000_000_000,
            flow_ids: one.evidence.clone(),
            ..Evidence::default()
        },
    }
}
