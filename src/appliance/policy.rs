//! The policy side of a running appliance: configuration → generation → workers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use crate::config::Config;
use crate::export::{Directory, Names, SessionInfo};
use crate::filter::Vocabulary;
use crate::mirror::hops::{Hops, Route};
use crate::mirror::{Cap, Rate, Session};
use crate::packet::Mac;
use crate::policy::book::{Delta, Derived};
use crate::rules::{
    CompileError, Compiled, Compiler, Group, GroupIx, GroupSetHandle, Labels, Policy, Publisher, Reader, RuleChange,
    RuleHandle, Selector,
};
use crate::worker::{Generation, MIRROR_SLOTS, MirrorLane};

/// Compiles configurations and publishes them, keeping the names that records refer to.
#[derive(Debug)]
pub struct PolicyHost {
    compiler: Compiler,
    publisher: Publisher<Generation>,
    names: Arc<PolicyNames>,
    /// Output index of each mirror session's target, see [`Targets`].
    targets: Targets,
    hops: Arc<Hops>,
    /// What the configuration says, beside rules and groups that a policy service keeps.
    config: Box<Config>,
    /// Groups of a policy service, which stand before those that only the configuration has.
    kept_groups: usize,
    /// Names that there were before the latest compilation.
    mark: Option<(usize, usize)>,
    /// Compiled aside for the service, and not in force yet.
    prepared: Option<(Generation, Option<Box<Config>>)>,
}

/// Names of everything a record or counter refers to by number, for all generations of the process.
#[derive(Debug)]
pub struct PolicyNames {
    pub labels: Arc<Labels>,
    /// When each rule id was first compiled, by handle, in nanoseconds since the Unix epoch.
    since: RwLock<Vec<u64>>,
    sessions: RwLock<SessionNames>,
}

/// Slot and sampling of each bit.
type SlotsByBit = Arc<[(u16, Rate)]>;

#[derive(Debug, Default)]
struct SessionNames {
    /// Slot → name.
    slots: Vec<Arc<str>>,
    /// Slot → how the latest generation that had the session treats it.
    settings: Vec<Session>,
    /// Slots of the sessions in force, by bit.
    current: Vec<u16>,
    /// Generation → slot and sampling of each bit, ascending. Generations that have what the one before them had are
    /// left out, so that reloads of rules alone take no memory.
    generations: Vec<(u32, SlotsByBit)>,
}

/// Which worker output carries a session's copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// That of the target port: outputs are in port order.
    ByPort,
    /// One output per session, from this index on.
    BySession { first: usize },
}

/// Why a policy was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the rules do not compile: {0}")]
    Compile(#[from] CompileError),
    #[error("more than {MIRROR_SLOTS} differently named mirror sessions since start")]
    TooManySessions,
    #[error(transparent)]
    Stale(#[from] crate::rules::StaleGeneration),
}

impl PolicyHost {
    /// Compiles generation 1. `now` is flow time: that of a capture's first packet in a replay.
    ///
    /// # Errors
    /// The policy does not compile.
    pub fn new(config: &Config, targets: Targets, now: u64) -> Result<Self, PolicyError> {
        Self::from(config, targets, 1, now)
    }

    /// As [`PolicyHost::new`], with another number for the first generation.
    ///
    /// # Errors
    /// The policy does not compile.
    pub fn from(config: &Config, targets: Targets, first: u32, now: u64) -> Result<Self, PolicyError> {
        let labels = Arc::new(Labels::new(config.limits.rules));
        let names =
            Arc::new(PolicyNames { labels: labels.clone(), since: RwLock::default(), sessions: RwLock::default() });
        let memory_limit = config.limits.policy_memory_mb as usize * (1 << 20);
        let compiler = Compiler::new(config.policy.clone(), first, labels, memory_limit)?;
        // Without ports there is nobody to ask.
        let hops = Arc::new(Hops::new((targets != Targets::ByPort).then(Mac::default)));
        let mut lanes = lanes(config, first, &names, targets, &hops)?;
        name_rules(&mut lanes, &names.labels);
        let rules = compiler.compiled().clone();
        let (budget, non_ip, live_flows) = (budget(config), config.non_ip, config.live_flows);
        let first = Generation { rules, mirrors: lanes, budget, non_ip, live_flows };
        names.note_rules(now);
        names.note_sessions(config);
        let (publisher, config) = (Publisher::new(first)?, Box::new(config.clone()));
        Ok(Self { compiler, publisher, names, targets, hops, config, kept_groups: 0, mark: None, prepared: None })
    }

    /// A worker's view.
    pub fn reader(&mut self) -> Reader<Generation> {
        self.publisher.reader()
    }

    pub fn names(&self) -> &Arc<PolicyNames> {
        &self.names
    }

    /// The ways to the collectors.
    pub fn hops(&self) -> &Arc<Hops> {
        &self.hops
    }

    /// Number of the generation in force.
    pub fn generation(&self) -> u32 {
        self.publisher.current().rules.generation()
    }

    pub fn current(&self) -> &Generation {
        self.publisher.current()
    }

    /// Compiles aside and publishes. On error the old generation stays in force. `now` is flow time.
    pub fn replace(&mut self, config: &Config, now: u64) -> Result<u32, PolicyError> {
        let number = self.generation() + 1;
        let next = self.compile(config, number)?;
        self.put_in_force(next, Some(Box::new(config.clone())), now)?;
        Ok(number)
    }

    /// Another configuration, aside. On error nothing has changed.
    fn compile(&mut self, config: &Config, number: u32) -> Result<Generation, PolicyError> {
        self.publisher.reclaim();
        let mark = self.names.mark();
        self.mark = Some(mark);
        let mirrors = lanes(config, number, &self.names, self.targets, &self.hops)?;
        match self.compiler.replace(config.policy.clone(), number) {
            Ok(rules) => {
                let (rules, budget, non_ip, live_flows) =
                    (rules.clone(), budget(config), config.non_ip, config.live_flows);
                Ok(Generation { rules, mirrors, budget, non_ip, live_flows })
            }
            Err(error) => {
                self.names.back_to(mark);
                self.hops.keep_only(&routes(&self.publisher.current().mirrors));
                Err(error.into())
            }
        }
    }

    fn put_in_force(&mut self, mut next: Generation, config: Option<Box<Config>>, now: u64) -> Result<(), PolicyError> {
        name_rules(&mut next.mirrors, &self.names.labels);
        self.names.note_rules(now);
        if let Some(config) = config {
            self.names.note_sessions(&config);
            self.hops.keep_only(&routes(&next.mirrors));
            self.config = config;
        }
        Ok(self.publisher.publish(next)?)
    }

    /// Changes some rules, all or none, and publishes. On error the old generation stays in force.
    pub fn commit(&mut self, changes: &[RuleChange], now: u64) -> Result<u32, PolicyError> {
        // What workers have left can then be written again, and stays in their caches.
        self.publisher.reclaim();
        let number = self.generation() + 1;
        let rules = self.compiler.commit(changes, number)?.clone();
        let next = self.with_rules(rules);
        self.put_in_force(next, None, now)?;
        Ok(number)
    }

    /// The generation in force with other rules.
    fn with_rules(&self, rules: Compiled) -> Generation {
        let old = self.publisher.current();
        let (budget, non_ip, live_flows) = (old.budget, old.non_ip, old.live_flows);
        Generation { rules, mirrors: old.mirrors.clone(), budget, non_ip, live_flows }
    }

    /// Compiles groups and rules of a policy service aside, beside what the configuration says of the rest: of mirror
    /// sessions, and of groups that only they name. On error nothing has changed.
    ///
    /// # Errors
    /// It does not compile.
    pub fn prepare(&mut self, derived: &Derived, delta: &Delta, number: u32) -> Result<(), PolicyError> {
        self.publisher.reclaim();
        let groups = derived.groups_of(delta);
        // Mirror sessions know groups by position: another group in the same place is another policy.
        let same = |(at, group): &(GroupIx, Group)| {
            usize::from(at.0) < self.kept_groups && self.compiler.group(*at).is_some_and(|old| old.name == group.name)
        };
        if !delta.whole && groups.iter().all(same) {
            self.compiler.regroup(&groups, &delta.rules, number)?;
        } else {
            self.compiler.replace(joined(&self.config.policy, derived), number)?;
            self.kept_groups = derived.groups().len();
        }
        self.prepared = Some((self.with_rules(self.compiler.compiled().clone()), None));
        Ok(())
    }

    /// Puts in force what was prepared. `now` is flow time.
    ///
    /// # Errors
    /// Its number does not ascend.
    pub fn publish_prepared(&mut self, now: u64) -> Result<Option<u32>, PolicyError> {
        let Some((next, config)) = self.prepared.take() else { return Ok(None) };
        let number = next.rules.generation();
        self.put_in_force(next, config, now)?;
        Ok(Some(number))
    }

    /// Forgets what was prepared; `derived` is what is in force.
    ///
    /// # Errors
    /// What is in force does not compile any more.
    pub fn abandon(&mut self, derived: &Derived) -> Result<(), PolicyError> {
        if let Some((_, Some(_))) = self.prepared.take() {
            self.mark.take().into_iter().for_each(|mark| self.names.back_to(mark));
            self.hops.keep_only(&routes(&self.publisher.current().mirrors));
        }
        self.compiler.replace(joined(&self.config.policy, derived), self.generation())?;
        self.kept_groups = derived.groups().len();
        Ok(())
    }

    /// As [`PolicyHost::prepare`], with what another configuration says of the rest.
    ///
    /// # Errors
    /// It does not compile.
    pub fn prepare_with(&mut self, config: &Config, derived: &Derived, number: u32) -> Result<(), PolicyError> {
        let config = with_policy(config.clone(), derived);
        let next = self.compile(&config, number)?;
        self.kept_groups = derived.groups().len();
        self.prepared = Some((next, Some(Box::new(config))));
        Ok(())
    }

    /// The rules in force, whether from a configuration or from commits.
    pub fn policy(&self) -> Policy {
        self.compiler.policy()
    }

    /// Frees generations that every worker has left; returns what each worker reports.
    pub fn reclaim(&mut self) -> Vec<u32> {
        self.publisher.reclaim();
        self.publisher.generations()
    }
}

/// A configuration with the groups and rules of a policy service in the place of its own.
#[must_use]
pub fn with_policy(config: Config, derived: &Derived) -> Config {
    Config { policy: joined(&config.policy, derived), ..config }
}

/// Groups and rules of the service; mirror sessions of the configuration with groups that only it has.
fn joined(configured: &Policy, derived: &Derived) -> Policy {
    let mut policy = derived.policy(configured.default);
    let mut at: HashMap<String, u16> = HashMap::new();
    for (position, group) in policy.groups.iter().enumerate() {
        at.insert(group.name.clone(), position as u16);
    }
    let mut position = |group: GroupIx| {
        let group = &configured.groups[usize::from(group.0)];
        let known = at.get(&group.name).copied();
        GroupIx(known.unwrap_or_else(|| {
            let next = policy.groups.len() as u16;
            policy.groups.push(group.clone());
            at.insert(group.name.clone(), next);
            next
        }))
    };
    let mut mirrors = configured.mirrors.clone();
    for selector in
        mirrors.iter_mut().flat_map(|mirror| &mut mirror.any_of).flat_map(|m| m.from.iter_mut().chain(&mut m.to))
    {
        if let Selector::Group(group) = selector {
            *group = position(*group);
        }
    }
    policy.mirrors = mirrors;
    policy
}

/// Where each mirror session's copies go in a generation.
fn lanes(
    config: &Config,
    number: u32,
    names: &PolicyNames,
    targets: Targets,
    hops: &Hops,
) -> Result<Vec<MirrorLane>, PolicyError> {
    let slots = names.enter(number, config)?;
    let lane = |(bit, session): (usize, &crate::mirror::Session)| MirrorLane {
        session: session.clone(),
        output: match targets {
            Targets::ByPort => session.port,
            Targets::BySession { first } => first + bit,
        },
        slot: slots[bit].0,
        hops: session.routes().map(|route| route.map(|route| hops.enter(route))).collect(),
        rules: Vec::new(),
    };
    Ok(config.mirrors.iter().enumerate().map(lane).collect())
}

fn budget(config: &Config) -> Cap {
    config.adaptive.as_ref().map_or(Cap::default(), |adaptive| adaptive.budget)
}

fn routes(lanes: &[MirrorLane]) -> Vec<Route> {
    lanes.iter().flat_map(|lane| lane.session.routes().flatten().cloned()).collect()
}

/// Rules have numbers when they were compiled; those that never had an effect have none.
fn name_rules(lanes: &mut [MirrorLane], labels: &Labels) {
    for lane in lanes {
        lane.rules = lane.session.rules.iter().filter_map(|id| labels.rule_handle(id)).collect();
        lane.rules.sort_unstable_by_key(|rule| rule.0);
    }
}

impl PolicyNames {
    /// Gives each session of a generation its counter slot; sessions of the same name share one.
    fn enter(&self, generation: u32, config: &Config) -> Result<SlotsByBit, PolicyError> {
        let mut sessions = self.sessions.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut slots = Vec::with_capacity(config.mirrors.len());
        for session in &config.mirrors {
            let known = sessions.slots.iter().position(|name| **name == *session.name);
            let slot = known.unwrap_or(sessions.slots.len());
            // Before the name is kept: names beyond the counters would be looked for there.
            if slot >= MIRROR_SLOTS {
                return Err(PolicyError::TooManySessions);
            }
            if known.is_none() {
                sessions.slots.push(Arc::from(session.name.as_str()));
            }
            slots.push((slot as u16, session.rate()));
        }
        let slots: Arc<[_]> = slots.into();
        if sessions.generations.last().is_none_or(|(_, before)| *before != slots) {
            sessions.generations.push((generation, slots.clone()));
        }
        Ok(slots)
    }

    /// Rule ids that are new count since now.
    fn note_rules(&self, now: u64) {
        let mut since = self.since.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        since.resize(self.labels.rule_count() + 1, now);
    }

    /// How the sessions of a generation in force sample.
    fn note_sessions(&self, config: &Config) {
        let mut sessions = self.sessions.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let slots = sessions.slots.len();
        sessions.settings.resize(slots, Session::default());
        sessions.current.clear();
        for session in &config.mirrors {
            if let Some(slot) = sessions.slots.iter().position(|name| **name == *session.name) {
                sessions.settings[slot] = session.clone();
                sessions.current.push(slot as u16);
            }
        }
    }

    /// Every session there ever was by counter slot, as its latest generation has it, and whether it is in force.
    pub fn known_sessions(&self) -> Vec<(Session, bool)> {
        let sessions = self.sessions.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let in_force = |slot: usize| sessions.current.contains(&(slot as u16));
        sessions.settings.iter().enumerate().map(|(slot, session)| (session.clone(), in_force(slot))).collect()
    }

    /// Since when the counters of each rule count, by handle; that of [`RuleHandle::DEFAULT`] is the start. A rule that
    /// was taken out and came back goes on counting where it was.
    pub fn since(&self) -> Vec<u64> {
        self.since.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// How many slots and generations of sessions there are.
    fn mark(&self) -> (usize, usize) {
        let sessions = self.sessions.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        (sessions.slots.len(), sessions.generations.len())
    }

    /// Forgets the sessions of a generation that was not put in force.
    fn back_to(&self, (slots, generations): (usize, usize)) {
        let mut sessions = self.sessions.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        sessions.slots.truncate(slots);
        sessions.generations.truncate(generations);
    }

    /// Name of a mirror session by its bit in a generation's verdicts.
    pub fn session(&self, generation: u32, bit: usize) -> Option<Arc<str>> {
        let sessions = self.sessions.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (slot, _) = sessions.at(generation, bit)?;
        sessions.slots.get(usize::from(slot)).cloned()
    }

    /// All session names by counter slot.
    pub fn slots(&self) -> Vec<Arc<str>> {
        self.sessions.read().unwrap_or_else(|poisoned| poisoned.into_inner()).slots.clone()
    }
}

impl Vocabulary for PolicyNames {
    fn rules(&self, note: &mut dyn FnMut(u32, &str)) {
        self.labels.each_rule(&mut |rule, id| note(rule.0, id));
    }

    fn group_sets(&self, note: &mut dyn FnMut(u32, &[&str])) {
        self.labels.each_group_set(&mut |set, names| {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            note(set.0, &names);
        });
    }

    fn groups(&self, note: &mut dyn FnMut(&str)) {
        let mut names = std::collections::BTreeSet::new();
        self.labels.each_group_set(&mut |_, set| names.extend(set.iter().cloned()));
        names.iter().for_each(|name| note(name));
    }

    fn sessions(&self, note: &mut dyn FnMut(u32, u8, &str)) {
        let sessions = self.sessions.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (generation, slots) in &sessions.generations {
            for (bit, (slot, _)) in slots.iter().enumerate() {
                if let Some(name) = sessions.slots.get(usize::from(*slot)) {
                    note(*generation, bit as u8, name);
                }
            }
        }
    }
}

impl SessionNames {
    fn at(&self, generation: u32, bit: usize) -> Option<(u16, Rate)> {
        let at = self.generations.partition_point(|(number, _)| *number <= generation).checked_sub(1)?;
        self.generations[at].1.get(bit).copied()
    }
}

impl Names for PolicyNames {
    fn rule(&self, rule: RuleHandle) -> Cow<'_, str> {
        Cow::Owned(self.labels.rule(rule).to_string())
    }

    fn groups(&self, groups: GroupSetHandle) -> Vec<Cow<'_, str>> {
        self.labels.groups(groups).iter().map(|name| Cow::Owned(name.to_string())).collect()
    }

    fn mirror(&self, generation: u32, bit: usize) -> Cow<'_, str> {
        self.session(generation, bit).map_or(Cow::Borrowed(""), |name| Cow::Owned(name.to_string()))
    }

    fn mirror_rate(&self, generation: u32, bit: usize) -> Option<Rate> {
        let sessions = self.sessions.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        sessions.at(generation, bit).map(|(_, rate)| rate)
    }
}

impl Directory for PolicyNames {
    fn sessions(&self) -> Vec<SessionInfo> {
        let sessions = self.sessions.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let both = sessions.slots.iter().zip(&sessions.settings);
        both.map(|(name, of)| SessionInfo { name: name.clone(), sample: of.sample, priority: of.priority }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appliance::Summary;
    use crate::config;
    use crate::worker::WorkerCounters;

    fn with_sessions(names: &[String]) -> Config {
        let text: String = names.iter().map(|n| format!("[[mirror]]\nname = \"{n}\"\ngroup = \"any\"\n")).collect();
        config::parse(&text, "test.toml").expect("valid")
    }

    #[test]
    fn session_names_belong_to_generations() {
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let mut host = PolicyHost::new(&with_sessions(&[a.clone(), b.clone()]), Targets::ByPort, 0).expect("compiles");
        for order in [[&a, &b], [&a, &b], [&b, &a], [&b, &a]] {
            host.replace(&with_sessions(&order.map(Clone::clone)), 0).expect("compiles");
        }
        let names = host.names();
        let first = |generation| names.session(generation, 0).map(|name| name.to_string());
        assert_eq!([1, 2, 3, 4, 5].map(first), ["a", "a", "a", "b", "b"].map(|name| Some(name.to_owned())));
        assert_eq!((first(0), names.session(5, 2)), (None, None));
        let kept = names.sessions.read().expect("not poisoned").generations.len();
        assert_eq!(kept, 2, "only what changed");
    }

    #[test]
    fn names_beyond_the_counters_are_refused_and_leave_no_trace() {
        let batch = |n: usize| -> Vec<String> { (0..64).map(|i| format!("s{}", n * 64 + i)).collect() };
        let mut host = PolicyHost::new(&with_sessions(&batch(0)), Targets::ByPort, 0).expect("compiles");
        for n in 1..MIRROR_SLOTS / 64 {
            host.replace(&with_sessions(&batch(n)), 0).expect("compiles");
        }
        let in_force = host.generation();
        let refused = host.replace(&with_sessions(&["one-more".to_owned()]), 0);
        assert!(matches!(refused, Err(PolicyError::TooManySessions)), "{refused:?}");
        assert_eq!((host.generation(), host.names().slots().len()), (in_force, MIRROR_SLOTS));
        let summary = Summary::of(&[Arc::new(WorkerCounters::new(8))], host.names());
        assert_eq!(summary.mirrored.len(), MIRROR_SLOTS, "every name has its counters");
        assert!(host.replace(&with_sessions(&batch(0)), 0).is_ok(), "known names may come back");
    }

    #[test]
    fn counters_of_a_rule_begin_with_its_first_generation() {
        let with_rules = |ids: &[&str]| {
            let rules = ids.iter().map(|id| format!("[[rule]]\nid = \"{id}\"\naction = \"deny\"\n"));
            let text = format!("[policy]\ndefault = \"deny\"\n{}", rules.collect::<String>());
            config::parse(&text, "test.toml").expect("valid")
        };
        let mut host = PolicyHost::new(&with_rules(&["a"]), Targets::ByPort, 100).expect("compiles");
        host.replace(&with_rules(&["b"]), 200).expect("compiles");
        host.replace(&with_rules(&["b", "a", "c"]), 300).expect("compiles");
        let since = host.names().since();
        let of = |id: &str| since[host.names().labels.rule_handle(id).expect("known").0 as usize];
        assert_eq!((since[0], of("a"), of("b"), of("c")), (100, 100, 200, 300), "`a` goes on counting");
    }
}
