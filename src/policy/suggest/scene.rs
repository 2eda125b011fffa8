//! Traffic judged by the rules that stand: what all generators look at.

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::judge::{Judge, Pairs, Rank};
use super::membership::{Stranger, strangers};
use super::settings::Settings;
use super::standing::Rulebook;
use super::tally::{Tally, count_of};
use super::traffic::{End, EndIx, Row, Talk, Traffic};
use super::vms::Act;
use crate::policy::learning::Endpoint;
use crate::rules::Decision;

/// What became of recorded flows, in flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// Let through.
    pub permitted: u64,
    /// Refused, though no detector named them.
    pub misdropped: u64,
    /// Let through, though a detector named them.
    pub escaped: u64,
    /// Refused.
    pub rejected: u64,
    /// Decided by a rule, and not by the default.
    pub ruled: u64,
}

/// All that is known before anything is proposed.
#[derive(Debug)]
pub struct Scene<'a> {
    pub traffic: &'a Traffic,
    pub book: &'a Rulebook,
    pub judge: Judge<'a>,
    pub settings: &'a Settings,
    /// The rule that decides each row now.
    pub ranks: Vec<Rank>,
    /// What each rule decides now, by rank.
    pub usage: Vec<Use>,
    pub outcome: Outcome,
    pub bytes: u64,
    /// First and last second of the traffic.
    pub span: (u32, u32),
    /// VMs that are in the wrong group, by their behaviour.
    pub strangers: Vec<Stranger>,
    /// Their places in the list, by the groups that they are in.
    strangers_of: FxHashMap<Arc<str>, Vec<usize>>,
    /// VMs and addresses seen at each end, a bit each.
    active: Vec<u64>,
    /// Of each end, the one that stands for its groups.
    plain: Vec<EndIx>,
}

/// What one rule decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Use {
    pub tally: Tally,
    pub rows: u32,
}

/// What one thread found.
struct Part {
    ranks: Vec<Rank>,
    usage: Vec<Use>,
    outcome: Outcome,
    bytes: u64,
    active: Vec<u64>,
}

impl Outcome {
    pub(super) fn note(&mut self, tally: &Tally, decision: Decision, ruled: bool) {
        let (flows, attack) = (u64::from(tally.flows), u64::from(tally.attack));
        if decision == Decision::Allow {
            self.permitted += flows;
            self.escaped += attack;
        } else {
            self.rejected += flows;
            self.misdropped += flows.saturating_sub(attack);
        }
        self.ruled += if ruled { flows } else { 0 };
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.permitted += other.permitted;
        self.misdropped += other.misdropped;
        self.escaped += other.escaped;
        self.rejected += other.rejected;
        self.ruled += other.ruled;
    }

    /// This, less one part, more another.
    #[must_use]
    pub(super) fn with(mut self, less: &Self, more: &Self) -> Self {
        self.add(more);
        self.permitted -= less.permitted;
        self.misdropped -= less.misdropped;
        self.escaped -= less.escaped;
        self.rejected -= less.rejected;
        self.ruled -= less.ruled;
        self
    }

    pub fn flows(&self) -> u64 {
        self.permitted + self.rejected
    }
}

/// Ranges of about the same length, one for each thread.
pub(super) fn shares(len: usize, threads: usize) -> Vec<Range<usize>> {
    let step = len.div_ceil(threads.max(1)).max(1);
    (0..len).step_by(step).map(|start| start..(start + step).min(len)).collect()
}

/// Does some work on ranges of rows at once, results in the order of the ranges.
pub(super) fn in_parallel<T: Send>(len: usize, threads: usize, work: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = shares(len, threads).into_iter().map(|range| scope.spawn(move || work(range))).collect();
        running.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

impl<'a> Scene<'a> {
    pub fn new(traffic: &'a Traffic, book: &'a Rulebook, settings: &'a Settings) -> Self {
        let judge = Judge::new(traffic, book);
        let strangers = strangers(traffic, book);
        let mut strangers_of: FxHashMap<Arc<str>, Vec<usize>> = FxHashMap::default();
        for (number, group) in
            strangers.iter().enumerate().flat_map(|(n, one)| one.from.iter().map(move |group| (n, group)))
        {
            strangers_of.entry(group.clone()).or_default().push(number);
        }
        let mut scene = Self {
            ranks: Vec::with_capacity(traffic.len()),
            usage: vec![Use::default(); judge.order().len()],
            outcome: Outcome::default(),
            bytes: 0,
            span: traffic.span().unwrap_or_default(),
            strangers,
            strangers_of,
            active: vec![0; traffic.ends.len()],
            plain: (0..traffic.ends.len() as u32).map(|end| traffic.plain(EndIx(end))).collect(),
            traffic,
            book,
            judge,
            settings,
        };
        for part in in_parallel(traffic.len(), settings.threads, |rows| scene.part(rows)) {
            scene.take(part);
        }
        scene
    }

    fn part(&self, rows: Range<usize>) -> Part {
        let mut part = Part {
            ranks: Vec::with_capacity(rows.len()),
            usage: vec![Use::default(); self.usage.len()],
            outcome: Outcome::default(),
            bytes: 0,
            active: vec![0; self.active.len()],
        };
        let mut pairs = Pairs::default();
        for row in &self.traffic.rows()[rows] {
            let rank = self.judge.decide(row, &mut pairs, &[]);
            if let Some(one) = part.usage.get_mut(rank.0 as usize) {
                one.tally.merge(&row.tally);
                one.rows += 1;
            }
            part.outcome.note(&row.tally, self.judge.decision(rank), rank != Rank::DEFAULT);
            part.bytes += row.tally.bytes;
            part.active[row.key.from.0 as usize] |= row.tally.clients;
            part.active[row.key.to.0 as usize] |= row.tally.servers;
            part.ranks.push(rank);
        }
        part
    }

    fn take(&mut self, part: Part) {
        self.ranks.extend(part.ranks);
        for (all, one) in self.usage.iter_mut().zip(&part.usage).filter(|(_, one)| one.rows > 0) {
            all.tally.merge(&one.tally);
            all.rows += one.rows;
        }
        self.outcome.add(&part.outcome);
        self.bytes += part.bytes;
        self.active.iter_mut().zip(&part.active).for_each(|(all, one)| *all |= one);
    }

    /// Each row with the rule that decides it now.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, Rank)> {
        self.traffic.rows().iter().zip(self.ranks.iter().copied())
    }

    pub fn end(&self, end: EndIx) -> &End {
        self.traffic.end(end)
    }

    /// The end that stands for all of an end's groups; itself if it is in none.
    pub fn plain(&self, end: EndIx) -> EndIx {
        self.plain[end.0 as usize]
    }

    /// VMs and addresses seen at an end in all its rows, estimated.
    pub fn active(&self, end: EndIx) -> u32 {
        count_of(self.active[end.0 as usize])
    }

    /// As a rule would name it; a VM that is in no group has no name there. One address of a group stands for itself.
    pub fn endpoint(&self, end: EndIx) -> Option<Endpoint> {
        let end = self.end(end);
        match end.net {
            Some(net) => Some(Endpoint::Net(net)),
            None => match end.endpoint(|group| self.book.size(group)) {
                Endpoint::Vm(_) => None,
                other => Some(other),
            },
        }
    }

    /// Days that the traffic spans, at least 1.
    pub fn days(&self) -> f64 {
        (f64::from(self.span.1 - self.span.0) / 86_400.0).max(1.0)
    }

    /// Whether half of a connection's flows are of a VM that is in the wrong group: the group is not to blame.
    pub fn is_explained(&self, (from, to, talk): (EndIx, EndIx, Talk), flows: u32) -> bool {
        let [from, to] = [from, to].map(|end| self.end(end));
        let service = talk.service();
        let groups = from.groups.iter().chain(&to.groups);
        groups.filter_map(|group| self.strangers_of.get(&**group)).flatten().any(|number| {
            let one = &self.strangers[*number];
            let does = |role: u8, peers: &End| {
                let habits = self.traffic.vms.all.get(&one.vm);
                let count = habits.and_then(|habits| habits.acts.get(&Act::new(role, &peers.groups, &service)));
                count.is_some_and(|count| u64::from(count.flows) * 2 >= flows.into())
            };
            (one.is_at(from) && does(0, to)) || (one.is_at(to) && does(1, from))
        })
    }
}
