//! [`Policy`] → [`Compiled`], and changes to it: checks, evaluation order, rows.
//!
//! Every rule has a turn in the evaluation order and, if it has an effect, a rank there; ranks leave room for rules
//! that come later. A commit touches the rows of the rules that change, and nothing else. When it does not fit (new
//! groups or IPv6 nets, no room between two ranks) all is built anew, which is slower but no different.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::IpNet;

use super::checks::{CompileError, check, check_groups, check_memory};
use super::compiled::{Compiled, HANDLE_LIMIT, Meaning, Mirrors, Watching};
use super::keyspace::{Family, Keyspace};
use super::labels::Labels;
use super::rule::{Action, Decision, Group, GroupIx, MirrorMatch, Mode, Policy, Rule, RuleHandle, Tier};
use crate::trie::{Change, Editor, Engine, Isa, RebuildNeeded, Row};

/// Bytes that a compiled policy may take if nothing else is said.
pub const DEFAULT_MEMORY: usize = 1 << 30;
/// What a row takes at the very least: its place in a block, and itself, twice while all is built.
const LEAST_ROW: usize = 16 + 2 * size_of::<Row>();
/// Policies of so many rules are not changed in place by [`Compiler::replace`].
const SMALL: usize = 4096;
/// Hosts that are moved between groups in place; more at once are not faster than building all anew.
const MOVED: usize = 32;
/// Ranks that rules after the last may take.
const SPARE: u32 = 1 << 10;

/// One step of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleChange {
    /// A new rule, or another in the place of the one with its id.
    Put(Rule),
    /// By id.
    Remove(String),
}

impl RuleChange {
    fn id(&self) -> &str {
        match self {
            Self::Put(rule) => &rule.id,
            Self::Remove(id) => id,
        }
    }
}

/// Where a rule stands among all others.
type Turn = (Tier, u32, u8, Arc<str>);

/// A rule and what was made of it.
#[derive(Clone, Debug)]
struct Placed {
    rule: Rule,
    /// For rules that have an effect, even if no packet can match them.
    rank: Option<u32>,
    meaning: u32,
    /// By [`Family`].
    rows: [Vec<Row>; 2],
}

impl Placed {
    /// Rank and handle of a shadow-mode rule that has an effect.
    fn watches(&self) -> Option<(u32, RuleHandle)> {
        let rank = self.rank.filter(|_| self.rule.mode == Mode::Shadow)?;
        Some((rank, Meaning::unpack(self.meaning).handle))
    }
}

impl Watching {
    fn of(rules: impl Iterator<Item = (u32, RuleHandle)>) -> Self {
        let mut rules: Vec<_> = rules.collect();
        rules.sort_unstable();
        let (ranks, handles) = rules.into_iter().unzip();
        Self { ranks, handles }
    }
}

/// The control thread's end of a policy: makes one generation from another.
#[derive(Debug)]
pub struct Compiler {
    labels: Arc<Labels>,
    memory_limit: usize,
    parts: Parts,
}

/// All that is built at once.
#[derive(Debug)]
struct Parts {
    /// The policy without its rules.
    frame: Policy,
    rules: HashMap<Arc<str>, Placed>,
    turns: BTreeMap<Turn, Option<u32>>,
    /// By [`Family`].
    editors: [Editor; 2],
    compiled: Compiled,
    /// What it takes, in bytes, by estimate after commits.
    memory: usize,
    /// A commit was made for one family and could not be for the other: the next one must build anew.
    torn: bool,
}

/// Why a change was not made in place.
enum Stopped {
    Refused(CompileError),
    /// It does not fit the structure there is.
    Rebuild,
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
    /// See [`CompileError`]; `labels` may then know new ids.
    pub fn build(policy: &Policy, generation: u32, labels: &Labels) -> Result<Compiled, CompileError> {
        Ok(Parts::build(policy.clone(), generation, labels, DEFAULT_MEMORY)?.compiled)
    }
}

impl Compiler {
    /// Compiles a policy, see [`Compiled::build`]. `memory_limit` is what it may take, in bytes.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(
        policy: Policy,
        generation: u32,
        labels: Arc<Labels>,
        memory_limit: usize,
    ) -> Result<Self, CompileError> {
        let parts = Parts::build(policy, generation, &labels, memory_limit)?;
        Ok(Self { labels, memory_limit, parts })
    }

    /// The generation made last.
    pub fn compiled(&self) -> &Compiled {
        &self.parts.compiled
    }

    /// A group of the policy made last.
    pub fn group(&self, at: GroupIx) -> Option<&Group> {
        self.parts.frame.groups.get(usize::from(at.0))
    }

    /// The policy made last, rules in evaluation order.
    pub fn policy(&self) -> Policy {
        let placed = self.parts.turns.keys().filter_map(|(.., id)| self.parts.rules.get(id));
        Policy { rules: placed.map(|placed| placed.rule.clone()).collect(), ..self.parts.frame.clone() }
    }

    /// Makes all changes, or none. Later changes see earlier ones.
    ///
    /// # Errors
    /// See [`CompileError`]. Nothing has changed then, but `labels` may know new ids.
    pub fn commit(&mut self, changes: &[RuleChange], generation: u32) -> Result<&Compiled, CompileError> {
        for change in changes {
            if let RuleChange::Put(rule) = change {
                check_groups(&rule.matches, self.parts.frame.groups.len(), || format!("rule `{}`", rule.id))?;
            }
        }
        let ids = changes.iter().map(|change| Arc::from(change.id()));
        let before: HashMap<Arc<str>, Option<Placed>> =
            ids.map(|id: Arc<str>| (id.clone(), self.parts.rules.get(&id).cloned())).collect();
        if self.parts.torn {
            return self.rebuild(self.changed(changes)?, generation);
        }
        let compiled = self.parts.compiled.clone();
        match self.change_in_place(changes, generation) {
            Ok(()) => Ok(&self.parts.compiled),
            Err(stopped) => {
                self.restore(before);
                self.parts.compiled = compiled;
                match stopped {
                    Stopped::Refused(error) => Err(error),
                    Stopped::Rebuild => self.rebuild(self.changed(changes)?, generation),
                }
            }
        }
    }

    /// Another policy: by a commit if it differs in few rules only, else built anew.
    ///
    /// # Errors
    /// As [`Compiler::commit`].
    pub fn replace(&mut self, policy: Policy, generation: u32) -> Result<&Compiled, CompileError> {
        check(&policy)?;
        let (frame, rules) = split(policy);
        if frame == self.parts.frame {
            let ids: HashSet<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
            let gone = self.parts.rules.keys().filter(|id| !ids.contains(&***id));
            let mut changes: Vec<RuleChange> = gone.map(|id| RuleChange::Remove(id.to_string())).collect();
            let differs = |rule: &&Rule| self.parts.rules.get(rule.id.as_str()).is_none_or(|old| old.rule != **rule);
            changes.extend(rules.iter().filter(differs).cloned().map(RuleChange::Put));
            // Small policies are built in no time, and then for the small-set kernel too.
            if rules.len() > SMALL && changes.len() * 4 <= rules.len() {
                return self.commit(&changes, generation);
            }
        }
        self.rebuild(Policy { rules, ..frame }, generation)
    }

    /// Other members for some groups, and changes of rules: all or none. A few IPv4 hosts that come, go, or move between
    /// sets of groups that occur already are changed in place; else all is built anew, which is slower but no different.
    ///
    /// # Errors
    /// As [`Compiler::commit`].
    pub fn regroup(
        &mut self,
        groups: &[(GroupIx, Group)],
        changes: &[RuleChange],
        generation: u32,
    ) -> Result<&Compiled, CompileError> {
        let mut next = self.parts.frame.groups.clone();
        for (GroupIx(at), group) in groups {
            let at = usize::from(*at);
            next.resize_with(next.len().max(at + 1), Group::default);
            next[at] = group.clone();
        }
        let Some(keyspace) = self.moved(groups, &next) else {
            let policy = self.changed(changes)?;
            return self.rebuild(Policy { groups: next, ..policy }, generation);
        };
        let former = std::mem::replace(&mut self.parts.compiled.keyspace, Arc::new(keyspace));
        let groups = std::mem::replace(&mut self.parts.frame.groups, next);
        if let Err(error) = self.commit(changes, generation) {
            (self.parts.compiled.keyspace, self.parts.frame.groups) = (former, groups);
            return Err(error);
        }
        self.parts.compiled.generation = generation;
        Ok(&self.parts.compiled)
    }

    /// The keyspace with the hosts of these groups moved, if that is all there is to do.
    fn moved(&self, groups: &[(GroupIx, Group)], next: &[Group]) -> Option<Keyspace> {
        let mut hosts: BTreeSet<u32> = BTreeSet::new();
        for (at, group) in groups {
            let old = self.parts.frame.groups.get(usize::from(at.0))?;
            let others =
                |group: &Group| (group.name.clone(), group.macs.clone(), group.vlans.clone(), group.vnis.clone());
            let has_v4 = self.parts.compiled.keyspace.has_v4(*at);
            if others(old) != others(group) || !has_v4 {
                return None;
            }
            let (before, after): (HashSet<_>, HashSet<_>) = (old.nets.iter().collect(), group.nets.iter().collect());
            for net in before.symmetric_difference(&after) {
                match net {
                    IpNet::V4(net) if net.prefix_len() == 32 => drop(hosts.insert(net.addr().into())),
                    _ => return None,
                }
            }
        }
        if hosts.len() > MOVED {
            return None;
        }
        let groups_of = |host: u32| -> Vec<u16> {
            let host = Ipv4Addr::from(host);
            let holds = |net: &IpNet| matches!(net, IpNet::V4(net) if net.contains(&host));
            (0..).zip(next).filter(|(_, group)| group.nets.iter().any(holds)).map(|(at, _)| at).collect()
        };
        let changes: Vec<(u32, Vec<u16>)> = hosts.into_iter().map(|host| (host, groups_of(host))).collect();
        self.parts.compiled.keyspace.with(&changes)
    }

    fn rebuild(&mut self, policy: Policy, generation: u32) -> Result<&Compiled, CompileError> {
        self.parts = Parts::build(policy, generation, &self.labels, self.memory_limit)?;
        Ok(&self.parts.compiled)
    }

    /// The policy as the changes make it.
    fn changed(&self, changes: &[RuleChange]) -> Result<Policy, CompileError> {
        let old = self.parts.rules.iter();
        let mut rules: BTreeMap<&str, &Rule> = old.map(|(id, placed)| (&**id, &placed.rule)).collect();
        for change in changes {
            match change {
                RuleChange::Put(rule) => drop(rules.insert(&rule.id, rule)),
                RuleChange::Remove(id) => {
                    rules.remove(id.as_str()).ok_or_else(|| CompileError::UnknownRule { id: id.clone() })?;
                }
            }
        }
        Ok(Policy { rules: rules.into_values().cloned().collect(), ..self.parts.frame.clone() })
    }

    fn restore(&mut self, before: HashMap<Arc<str>, Option<Placed>>) {
        for id in before.keys() {
            self.forget(id);
        }
        for placed in before.into_values().flatten() {
            self.remember(placed);
        }
    }

    fn forget(&mut self, id: &str) -> Option<Placed> {
        let placed = self.parts.rules.remove(id)?;
        self.parts.turns.remove(&turn(&placed.rule));
        Some(placed)
    }

    fn remember(&mut self, placed: Placed) {
        let turn = turn(&placed.rule);
        self.parts.rules.insert(turn.3.clone(), placed.clone());
        self.parts.turns.insert(turn, placed.rank);
    }

    fn change_in_place(&mut self, changes: &[RuleChange], generation: u32) -> Result<(), Stopped> {
        let mut gone: Vec<Placed> = Vec::new();
        let mut fresh: Vec<&str> = Vec::new();
        for change in changes {
            match self.forget(change.id()) {
                // A rule that an earlier change of this commit brought was never in the engines.
                Some(old) => match fresh.iter().position(|id| *id == change.id()) {
                    Some(at) => drop(fresh.swap_remove(at)),
                    None => gone.push(old),
                },
                None if matches!(change, RuleChange::Remove(_)) => {
                    return Err(Stopped::Refused(CompileError::UnknownRule { id: change.id().to_owned() }));
                }
                None => {}
            }
            if let RuleChange::Put(rule) = change {
                let placed = self.place(rule)?;
                self.remember(placed);
                fresh.push(&rule.id);
            }
        }
        let fresh: Vec<&Placed> = fresh.iter().filter_map(|id| self.parts.rules.get(*id)).collect();
        let more: usize = fresh.iter().map(|placed| rows_of(placed)).sum();
        self.within_limit(more, fresh.iter().map(|placed| (placed.rule.id.as_str(), rows_of(placed))))?;
        let rule_count = self.parts.compiled.rule_count + with_effect(fresh.iter().copied()) - with_effect(&gone);
        for family in Family::ALL {
            let at = family as usize;
            let mut steps = Vec::new();
            for placed in &gone {
                let rank = placed.rank.unwrap_or_default();
                steps.extend(placed.rows[at].iter().map(|row| Change::Remove { row, rank }));
            }
            for placed in &fresh {
                let (rank, meaning) = (placed.rank.unwrap_or_default(), placed.meaning);
                steps.extend(placed.rows[at].iter().map(|row| Change::Insert { row, rank, meaning }));
            }
            if !steps.is_empty() {
                let engine = self.parts.editors[at].commit(&steps).map_err(|_: RebuildNeeded| Stopped::Rebuild)?;
                self.parts.compiled.rules[at] = engine.clone();
                self.parts.torn = true;
            }
        }
        self.parts.torn = false;
        if gone.iter().chain(fresh.iter().copied()).any(|placed| placed.watches().is_some()) {
            let old = &self.parts.compiled.watching;
            let stays = |rank: &u32| !gone.iter().any(|placed| placed.rank == Some(*rank));
            let old = old.ranks.iter().copied().zip(old.handles.iter().copied()).filter(|(rank, _)| stays(rank));
            let watching = Watching::of(old.chain(fresh.iter().filter_map(|placed| placed.watches())));
            self.parts.compiled.watching = Arc::new(watching);
        }
        (self.parts.compiled.generation, self.parts.compiled.rule_count) = (generation, rule_count);
        let less: usize = gone.iter().map(rows_of).sum();
        self.parts.memory = (self.parts.memory + more * LEAST_ROW).saturating_sub(less * LEAST_ROW);
        Ok(())
    }

    /// A new rule with a rank that suits its turn.
    fn place(&self, rule: &Rule) -> Result<Placed, Stopped> {
        let handle = if is_inert(rule) {
            RuleHandle::DEFAULT
        } else {
            self.labels.intern_rules(&[&rule.id]).map_err(Stopped::Refused)?[0]
        };
        if handle.0 >= HANDLE_LIMIT {
            let known = self.labels.rule_count();
            let error = CompileError::TooManyRules { known, fresh: 1, limit: HANDLE_LIMIT as usize - 1 };
            return Err(Stopped::Refused(error));
        }
        let keyspace = &self.parts.compiled.keyspace;
        let count = keyspace.row_count(&rule.matches).ok_or(Stopped::Rebuild)?;
        self.within_limit(count, std::iter::once((rule.id.as_str(), count)))?;
        let mut placed = placed(rule.clone(), handle, keyspace).ok_or(Stopped::Rebuild)?;
        if !is_inert(rule) {
            placed.rank = Some(self.free_rank(&turn(rule)).ok_or(Stopped::Rebuild)?);
        }
        Ok(placed)
    }

    /// Refuses so many rows more if they cannot fit.
    fn within_limit<'a>(&self, more: usize, counts: impl Iterator<Item = (&'a str, usize)>) -> Result<(), Stopped> {
        let needed = self.parts.memory.saturating_add(more.saturating_mul(LEAST_ROW));
        check_memory(needed, self.memory_limit, counts).map_err(Stopped::Refused)
    }

    /// A rank between those of the neighbours that no living generation has.
    fn free_rank(&self, turn: &Turn) -> Option<u32> {
        let before = self.parts.turns.range(..turn).rev().find_map(|(_, rank)| *rank);
        let after = self.parts.turns.range(turn..).find_map(|(_, rank)| *rank);
        let first = before.map_or(0, |rank| rank + 1);
        let end = after.unwrap_or(first + SPARE);
        // From the middle outwards, so that there is room on both sides; after the last rule, from the near end.
        let middle = if after.is_none() { first } else { first + end.saturating_sub(first) / 2 };
        let is_free = |rank: &u32| self.parts.editors.iter().all(|editor| editor.is_free(*rank));
        (middle..end).find(is_free).or_else(|| (first..middle).rev().find(is_free))
    }
}

impl Parts {
    fn build(policy: Policy, generation: u32, labels: &Labels, memory_limit: usize) -> Result<Self, CompileError> {
        check(&policy)?;
        let ids: Vec<&str> = policy.rules.iter().filter(|rule| !is_inert(rule)).map(|rule| rule.id.as_str()).collect();
        let handles: HashMap<String, RuleHandle> =
            ids.iter().map(|id| (*id).to_owned()).zip(labels.intern_rules(&ids)?).collect();
        let known = labels.rule_count();
        if known >= HANDLE_LIMIT as usize {
            return Err(CompileError::TooManyRules { known, fresh: 0, limit: HANDLE_LIMIT as usize });
        }
        let keyspace = Keyspace::build(&policy, labels)?;
        afford(&policy, &keyspace, memory_limit)?;
        let mirrors = mirrors(&policy, &keyspace)?;
        let (frame, mut rules) = split(policy);
        rules.sort_by_cached_key(turn);
        let step = rank_step(rules.len());
        let (mut all, mut meanings): (Vec<Placed>, Vec<u32>) = (Vec::with_capacity(rules.len()), Vec::new());
        for rule in rules {
            let handle = handles.get(&rule.id).copied().unwrap_or_default();
            let Some(mut placed) = placed(rule, handle, &keyspace) else {
                unreachable!("the keyspace was made with all nets of the policy")
            };
            if !is_inert(&placed.rule) {
                placed.rank = Some(meanings.len() as u32);
                meanings.push(placed.meaning);
                meanings.resize(meanings.len() + step - 1, 0);
            }
            all.push(placed);
        }
        let editor = |family: Family| {
            let (mut rows, mut ranks) = (Vec::new(), Vec::new());
            for placed in &all {
                let own = &placed.rows[family as usize];
                rows.extend(own.iter().cloned());
                ranks.extend(own.iter().filter_map(|_| placed.rank));
            }
            let meanings: &[u32] = if rows.is_empty() { &[] } else { &meanings };
            Editor::new(&rows, &ranks, meanings).map_err(CompileError::Rows)
        };
        let editors = [editor(Family::V4)?, editor(Family::V6)?];
        let compiled = Compiled {
            generation,
            default: frame.default,
            rule_count: with_effect(&all),
            keyspace: Arc::new(keyspace),
            rules: editors.each_ref().map(|editor| editor.engine().clone()),
            mirrors: Arc::new(mirrors),
            watching: Arc::new(Watching::of(all.iter().filter_map(Placed::watches))),
        };
        let needed = compiled.memory_bytes();
        check_memory(needed, memory_limit, all.iter().map(|placed| (placed.rule.id.as_str(), rows_of(placed))))?;
        let turns = all.iter().map(|placed| (turn(&placed.rule), placed.rank)).collect();
        let rules = all.into_iter().map(|placed| (Arc::from(placed.rule.id.as_str()), placed)).collect();
        Ok(Self { frame, rules, turns, editors, compiled, memory: needed, torn: false })
    }
}

/// Ranks from one rule to the next: room for others in between, as far as memory allows.
fn rank_step(rules: usize) -> usize {
    match rules {
        0..4096 => 64,
        4096..32_768 => 16,
        _ => 4,
    }
}

fn split(mut policy: Policy) -> (Policy, Vec<Rule>) {
    let rules = std::mem::take(&mut policy.rules);
    (policy, rules)
}

fn turn(rule: &Rule) -> Turn {
    (rule.tier, rule.priority, action_rank(rule.action), Arc::from(rule.id.as_str()))
}

fn rows_of(placed: &Placed) -> usize {
    placed.rows.iter().map(Vec::len).sum()
}

fn with_effect<'a>(rules: impl IntoIterator<Item = &'a Placed>) -> usize {
    rules.into_iter().filter(|placed| !is_inert(&placed.rule)).count()
}

/// Disabled, or a note that nobody is to take.
fn is_inert(rule: &Rule) -> bool {
    match rule.mode {
        Mode::Disabled => true,
        Mode::Shadow => rule.action == Action::Log,
        Mode::Enforce => false,
    }
}

/// A rule without a rank yet. `None` when it has a net that the keyspace does not know.
fn placed(rule: Rule, handle: RuleHandle, keyspace: &Keyspace) -> Option<Placed> {
    let decision = match rule.action {
        Action::Allow | Action::Log => Decision::Allow,
        Action::Deny => Decision::Deny,
        Action::Reject => Decision::Reject,
    };
    let meaning = Meaning {
        handle,
        decision,
        stateful: rule.stateful && rule.action == Action::Allow,
        tier: rule.tier,
        log: rule.action == Action::Log,
    };
    let mut rows = [Vec::new(), Vec::new()];
    if !is_inert(&rule) {
        let passive = rule.action == Action::Log || rule.mode == Mode::Shadow;
        for family in Family::ALL {
            rows[family as usize] = keyspace.rows(&rule.matches, family, passive)?;
        }
    }
    Some(Placed { rule, rank: None, meaning: meaning.pack(), rows })
}

/// Refuses a policy that cannot fit, before its rows are made.
fn afford(policy: &Policy, keyspace: &Keyspace, limit: usize) -> Result<(), CompileError> {
    let rules = policy.rules.iter().filter(|rule| !is_inert(rule)).map(|rule| (rule.id.as_str(), &rule.matches));
    let mirrors = policy.mirrors.iter().flat_map(|mirror| &mirror.any_of).map(|m| ("a mirror session", m));
    let counts: Vec<(&str, usize)> =
        rules.chain(mirrors).map(|(id, m)| (id, keyspace.row_count(m).unwrap_or(0))).collect();
    let rows = counts.iter().fold(0usize, |sum, (_, count)| sum.saturating_add(*count));
    check_memory(rows.saturating_mul(LEAST_ROW), limit, counts.into_iter())
}

fn mirrors(policy: &Policy, keyspace: &Keyspace) -> Result<Mirrors, CompileError> {
    let mut bits = Vec::new();
    let mut rows: [(Vec<Row>, Vec<u32>); 2] = Default::default();
    for (session, mirror) in policy.mirrors.iter().enumerate() {
        for m in &mirror.any_of {
            let rank = bits.len() as u32;
            bits.push(1 << session);
            for family in Family::ALL {
                let (rows, ranks) = &mut rows[family as usize];
                let own = keyspace.rows(m, family, true).unwrap_or_default();
                ranks.extend(own.iter().map(|_| rank));
                rows.extend(own);
            }
        }
    }
    let engine = |family: Family| {
        let (rows, ranks) = &rows[family as usize];
        Engine::with_ranks(rows, ranks, &[], Isa::best()).map_err(CompileError::Rows)
    };
    Ok(Mirrors {
        engines: [engine(Family::V4)?, engine(Family::V6)?],
        bits: bits.into(),
        wanted_by: [Decision::Allow, Decision::Deny, Decision::Reject].map(|d| sessions_for(&policy.mirrors, d)),
    })
}

/// Sessions that want packets with this decision.
fn sessions_for(mirrors: &[MirrorMatch], decision: Decision) -> u64 {
    let wants = |mirror: &MirrorMatch| mirror.decisions.is_empty() || mirror.decisions.contains(&decision);
    mirrors.iter().enumerate().filter(|(_, mirror)| wants(mirror)).fold(0, |mask, (at, _)| mask | 1 << at)
}

fn action_rank(action: Action) -> u8 {
    match action {
        Action::Log => 0,
        Action::Deny => 1,
        Action::Reject => 2,
        Action::Allow => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Group, GroupIx, MAX_MIRRORS, Match, Selector};

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
