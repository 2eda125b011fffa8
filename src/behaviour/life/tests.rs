//! Whole lives: warm-up, retraining, gates, shadows, drift, groups, swaps under load.

use std::time::Duration;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use super::*;
use crate::behaviour::{ScoredRecord, Scorer};
use crate::config;
use crate::flow::{EndReason, FlowRecord, FlowState, Spread};
use crate::packet::Tuple;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const EPOCH: u64 = 1_463_044_282 * SECOND;

fn settings() -> config::Scorer {
    config::Scorer { warmup_records: 3000, retrain: Some(Duration::from_secs(3600)), ..config::Scorer::default() }
}

/// Records of a small office, a second apart.
struct Office {
    rng: Pcg32,
    now: u64,
    count: u64,
    /// What sessions with the web are multiplied with.
    scale: f64,
}

impl Office {
    fn new(seed: u64) -> Self {
        Self { rng: Pcg32::seed_from_u64(seed), now: EPOCH, count: 0, scale: 1.0 }
    }

    fn below(&mut self, n: u64) -> u64 {
        u64::from(self.rng.next_u32()) % n
    }

    fn ordinary(&mut self) -> FlowRecord {
        let kind = self.below(10);
        let client = 0x0a00_0001 + u128::from(self.below(30));
        let (port, server) = match kind {
            0..=5 => (443, 0x0a01_0001 + u128::from(self.below(5))),
            6..=8 => (53, 0x0a01_0010),
            _ => (5432, 0x0a01_0020 + u128::from(self.below(2))),
        };
        let packets = match kind {
            6..=8 => [1, 1],
            _ => [(4.0 * self.scale) as u64 + self.below(20), (4.0 * self.scale) as u64 + self.below(30)],
        };
        let protocol = if port == 53 { 17 } else { 6 };
        let size = if port == 53 { 90 } else { 200 + self.below(600) };
        self.record((client, server), (protocol, port), packets, size)
    }

    /// What no detector looks for: long, chatty, reset by both sides, to a port of its own.
    fn odd(&mut self) -> FlowRecord {
        let ends = (0x0a00_0001 + u128::from(self.below(30)), 0x0a01_0030 + u128::from(self.below(10)));
        let packets = [300 + self.below(200), 300 + self.below(200)];
        let (size, length) = (60 + self.below(30), 400 + self.below(400));
        let record = self.record(ends, (6, 7777), packets, size);
        FlowRecord { start: record.end - length * SECOND, tcp_flags: [0x3e, 0x3e], ..record }
    }

    fn record(&mut self, ends: (u128, u128), service: (u8, u16), packets: [u64; 2], size: u64) -> FlowRecord {
        self.now += SECOND;
        self.count += 1;
        let length = (100 + self.below(2000)) * 1_000_000;
        let src_port = 32_768 + self.below(28_000) as u16;
        let bytes = [packets[0] * 80, packets[1] * size];
        FlowRecord {
            flow_id: self.count,
            tuple: Tuple {
                src: ends.0,
                dst: ends.1,
                src_port,
                dst_port: service.1,
                protocol: service.0,
                version: 4,
                ..Tuple::default()
            },
            start: self.now - length,
            end: self.now,
            emitted: self.now,
            packets,
            bytes,
            payload_bytes: [bytes[0] / 3, bytes[1] * 9 / 10],
            tcp_flags: if service.0 == 6 { [0x1b, 0x1b] } else { [0, 0] },
            state: if service.0 == 6 { FlowState::Closed } else { FlowState::Established },
            reason: EndReason::Idle,
            sizes: Spread { min: 60, max: size + 60, ..Spread::default() },
            ..FlowRecord::default()
        }
    }
}

/// A scorer with what came out of it.
struct Run {
    scorer: Scorer,
    out: Vec<ScoredRecord>,
    news: Vec<News>,
}

impl Run {
    fn new(settings: &config::Scorer) -> Self {
        Self { scorer: Scorer::new(settings, 1), out: Vec::new(), news: Vec::new() }
    }

    fn take(&mut self, record: FlowRecord) {
        self.scorer.observe(record, &mut |scored| self.out.push(scored));
        self.scorer.drain_alerts();
        self.news.extend(self.scorer.drain_news());
    }

    fn ordinary(&mut self, office: &mut Office, count: usize) {
        (0..count).for_each(|_| self.take(office.ordinary()));
    }

    /// Share of `count` fresh records that are unusual.
    fn unusual(&mut self, count: usize, mut make: impl FnMut() -> FlowRecord) -> f64 {
        self.scorer.drain(&mut |scored| self.out.push(scored));
        let before = self.out.len();
        (0..count).for_each(|_| self.take(make()));
        self.scorer.drain(&mut |scored| self.out.push(scored));
        let new = &self.out[before..];
        new.iter().filter(|s| s.score.is_some_and(|score| score >= 0.99)).count() as f64 / new.len() as f64
    }

    fn trained(&self) -> Vec<(u64, &Candidate)> {
        let trained = self.news.iter().filter_map(|news| match news {
            News::Trained { candidate, id } => Some((*id, &**candidate)),
            News::Failed(_) | News::Drift { .. } | News::Judged { .. } => None,
        });
        trained.collect()
    }
}

#[test]
fn models_follow_each_other_at_the_interval() {
    let (mut run, mut office) = (Run::new(&settings()), Office::new(1));
    run.ordinary(&mut office, 3000 + 3 * 3900);
    let trained = run.trained();
    let told: Vec<_> = trained.iter().map(|(id, c)| (*id, c.cause, c.objection.clone())).collect();
    assert_eq!(told[0], (1, Cause::WarmUp, None));
    assert_eq!(told[1], (2, Cause::Interval, None));
    assert_eq!(told.len(), 4, "{told:?}");
    for pair in trained.windows(2) {
        let passed = pair[1].1.at - pair[0].1.at;
        assert!((HOUR..HOUR + 300 * SECOND).contains(&passed), "{passed}");
        assert!(pair[1].1.span.0 > pair[0].1.span.1, "every window begins after the one before it");
    }
    let stats = run.scorer.stats();
    assert_eq!((stats.model, stats.swaps, stats.rejected), (4, 4, 0));
    assert!(run.unusual(4000, || office.ordinary()) < 0.03);
}

#[test]
fn a_burst_that_no_detector_knows_does_not_become_ordinary() {
    let (mut run, mut office) = (Run::new(&settings()), Office::new(2));
    run.ordinary(&mut office, 3000);
    assert!(run.unusual(500, || office.odd()) > 0.95, "it stands out before");
    // A fifth of all records for two more intervals.
    for n in 0..2 * 4200 {
        let record = if n % 5 == 0 { office.odd() } else { office.ordinary() };
        run.take(record);
    }
    let flagged = run.out.iter().filter(|s| s.flags.is_attack()).count();
    assert!(flagged < run.out.len() / 100, "the detectors do not know it: {flagged}");
    let trained = run.trained();
    assert!(trained.len() >= 3, "{}", trained.len());
    let (_, last) = trained.last().unwrap();
    assert!(last.figures.unusual_share > 0.15, "{:?}", last.figures);
    assert!(run.unusual(500, || office.odd()) > 0.9, "it stands out afterwards");
    assert!(run.unusual(2000, || office.ordinary()) < 0.05);
}

/// Without the gates the same burst is learnt: the test above can fail.
#[test]
fn the_same_burst_is_learnt_where_it_is_in_the_first_training() {
    let settings = config::Scorer { warmup_records: 8000, ..settings() };
    let (mut run, mut office) = (Run::new(&settings), Office::new(2));
    for n in 0..8000 {
        let record = if n % 5 == 0 { office.odd() } else { office.ordinary() };
        run.take(record);
    }
    assert!(run.unusual(500, || office.odd()) < 0.5);
}

#[test]
fn traffic_that_is_all_new_waits_for_a_person() {
    let (mut run, mut office) = (Run::new(&settings()), Office::new(3));
    run.ordinary(&mut office, 3000);
    for n in 0..4200 {
        let record = if n % 5 > 0 { office.odd() } else { office.ordinary() };
        run.take(record);
    }
    let (id, last) = *run.trained().last().unwrap();
    let objection = last.objection.as_deref().unwrap();
    assert!(objection.contains("promote it if that is how things are now"), "{objection}");
    assert!(last.figures.reference_unusual.is_some() && last.figures.outliers > 100, "{:?}", last.figures);
    assert_eq!((run.scorer.stats().model, run.scorer.stats().rejected), (1, 1));
    // A person says that it is.
    let in_use = last.in_use(id);
    run.scorer.activate(Scope::All, in_use, &mut |_| ());
    assert!(run.unusual(500, || office.odd()) < 0.2);
}

fn features(records: &[FlowRecord]) -> Vec<crate::behaviour::Features> {
    let mut extractor = crate::behaviour::Extractor::new(60 * SECOND, 1);
    records.iter().map(|record| extractor.extract(record)).collect()
}

fn candidate_of(rows: Vec<crate::behaviour::Features>, active: Option<InUse>, alerted: &[FlowRecord]) -> Candidate {
    candidate(rows, active, features(alerted), 0)
}

/// Of a window in which more is unusual than not, with an alert about all of it.
fn held_candidate(
    rows: Vec<crate::behaviour::Features>,
    active: InUse,
    alerted: Vec<crate::behaviour::Features>,
) -> Candidate {
    let unusual = rows.len() as u64 + 1;
    candidate(rows, Some(active), alerted, unusual)
}

fn candidate(
    rows: Vec<crate::behaviour::Features>,
    active: Option<InUse>,
    alerted: Vec<crate::behaviour::Features>,
    seen_unusual: u64,
) -> Candidate {
    let training = crate::behaviour::Training {
        members: Default::default(),
        trees: 100,
        sample: 256,
        contamination: 0.01,
        seed: 1,
        isa: crate::trie::Isa::best(),
    };
    let taken = |features: &crate::behaviour::Features| Taken {
        features: *features,
        source: crate::behaviour::Host::source(&Tuple::default()),
        destination: crate::behaviour::Host::destination(&Tuple::default()),
        suspicious: false,
        attack: false,
    };
    let harvest = window::Harvest {
        ordinary: rows.iter().map(taken).collect(),
        alerted,
        seen: rows.len() as u64 + seen_unusual,
        seen_unusual,
        ..window::Harvest::default()
    };
    let from = job::Source::Window { harvest: Box::new(harvest), attacks: window::Attacks::default() };
    job::Job { scope: Scope::All, cause: Cause::Interval, at: 5, shadow: false, from, active, training }.run().unwrap()
}

#[test]
fn candidates_are_held_against_what_was_ordinary_and_what_was_not() {
    let mut office = Office::new(4);
    let ordinary: Vec<FlowRecord> = (0..4000).map(|_| office.ordinary()).collect();
    let odd: Vec<FlowRecord> = (0..4000).map(|_| office.odd()).collect();
    let active = candidate_of(features(&ordinary), None, &[]).in_use(7);
    let alike = candidate_of(features(&ordinary[2000..]), Some(active.clone()), &odd[..100]);
    assert_eq!(alike.objection, None, "{:?}", alike.figures);
    assert_eq!(alike.role(), Role::Active);
    let strange = candidate_of(features(&odd), Some(active.clone()), &[]);
    assert!(strange.objection.as_deref().unwrap().contains("ordinary traffic that model 7 learnt from unusual"));
    assert_eq!(strange.role(), Role::Rejected);
    let both: Vec<FlowRecord> = ordinary.iter().zip(odd.iter().cycle()).flat_map(|(a, b)| [*a, *b]).collect();
    let blind = candidate_of(features(&both), Some(active.clone()), &odd[..100]);
    let objection = blind.objection.as_deref().unwrap();
    assert!(objection.contains("100 outliers of model 7 ordinary"), "{objection}");
    // What a model of few records says of outliers does not count.
    let weak = InUse { records: 500, ..active };
    assert_eq!(candidate_of(features(&both), Some(weak), &odd[..100]).objection, None);
}

#[test]
fn no_record_is_lost_or_scored_twice_while_models_are_swapped() {
    let settings = config::Scorer { warmup_records: 1000, retrain: Some(Duration::from_secs(1500)), ..settings() };
    let (jobs, work) = crossbeam::channel::unbounded::<Job>();
    let (done, finished) = crossbeam::channel::unbounded::<Candidate>();
    let trainer = std::thread::spawn(move || work.iter().for_each(|job| drop(done.send(job.run().unwrap()))));
    let mut scorer = Scorer::new(&settings, 1).aside();
    let (mut office, mut out, mut id) = (Office::new(5), Vec::new(), 0);
    let mut sent = 0;
    while id < 8 {
        scorer.observe(office.ordinary(), &mut |scored: ScoredRecord| out.push((scored.record.flow_id, scored.score)));
        sent += 1;
        assert!(sent < 4_000_000, "{id} models came in force");
        scorer.drain_alerts();
        if let Some(job) = scorer.take_job() {
            jobs.send(job).unwrap();
        }
        for candidate in finished.try_iter() {
            id += 1;
            scorer.settle(&candidate, id, &mut |scored| out.push((scored.record.flow_id, scored.score)));
        }
    }
    scorer.flush(&mut |scored| out.push((scored.record.flow_id, scored.score)));
    drop(jobs);
    trainer.join().unwrap();
    let ids: Vec<u64> = out.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, (1..=sent).collect::<Vec<_>>());
    // From the first model on every record has a score, and it goes on while others are trained.
    let first = out.iter().position(|(_, score)| score.is_some()).unwrap();
    assert!(out[first..].iter().all(|(_, score)| score.is_some()));
    let stats = scorer.stats();
    assert_eq!((stats.records, stats.scored), (sent, sent - first as u64));
    assert_eq!(stats.swaps + stats.rejected, 8);
}

#[test]
fn retraining_gives_the_same_however_records_are_drained() {
    let run = |every: usize| {
        let (mut scorer, mut office, mut out) = (Scorer::new(&settings(), 1), Office::new(6), Vec::new());
        let mut take = |scored: ScoredRecord| out.push((scored.record.flow_id, scored.score, scored.flags.bits()));
        for n in 1..=9000 {
            let record = if n % 13 == 0 { office.odd() } else { office.ordinary() };
            scorer.observe(record, &mut take);
            if n % every == 0 {
                scorer.drain(&mut take);
            }
        }
        scorer.flush(&mut take);
        let models = scorer.stats().model;
        (out, models)
    };
    let once = run(1_000_000);
    assert!(once.1 >= 2);
    assert!(once == run(1) && once == run(37));
}

#[test]
fn a_restored_model_scores_the_first_record_as_it_did_before() {
    let (mut run, mut office) = (Run::new(&settings()), Office::new(7));
    run.ordinary(&mut office, 3000);
    let (id, candidate) = run.trained()[0];
    let bytes = candidate.model.to_bytes();
    let read = crate::behaviour::Model::from_bytes(&bytes).unwrap();
    let in_use = InUse { model: read.into(), ..candidate.in_use(id) };
    let mut again = Run::new(&settings());
    again.scorer.activate(Scope::All, in_use.clone(), &mut |_| ());
    let mut same = Run::new(&settings());
    same.scorer.activate(Scope::All, candidate.in_use(id), &mut |_| ());
    let fresh: Vec<FlowRecord> = (0..600).map(|_| office.ordinary()).collect();
    for record in fresh {
        again.take(record);
        same.take(record);
    }
    assert!(again.out.len() >= 512 && again.out.iter().all(|s| s.score.is_some()));
    assert!(again.out == same.out);
}

#[test]
fn a_shadow_scores_beside_and_is_promoted_or_not() {
    let settings = config::Scorer { shadow: true, promote_after: Some(2000), ..settings() };
    let (mut run, mut office) = (Run::new(&settings), Office::new(1));
    run.ordinary(&mut office, 3000 + 4000);
    let stats = run.scorer.stats();
    let told: Vec<_> = run.trained().iter().map(|(_, c)| (c.objection.clone(), c.figures, c.excluded)).collect();
    assert_eq!((stats.model, stats.shadow), (1, 2), "{told:?} {:?}", stats.alerts);
    run.ordinary(&mut office, 1000);
    let (_, _, shadow) = run.scorer.models().next().unwrap();
    let (in_use, compared) = shadow.unwrap();
    assert!(in_use.id == 2 && compared.records >= 1000, "{compared:?}");
    assert!(compared.agreement > 0.95 && compared.rank_correlation.unwrap() > 0.7, "{compared:?}");
    run.ordinary(&mut office, 1500);
    let judged = run.news.iter().find_map(|news| match news {
        News::Judged { id, role, reason, .. } => Some((*id, *role, reason.clone())),
        _ => None,
    });
    let (id, role, reason) = judged.unwrap();
    assert_eq!((id, role), (2, Role::Active), "{reason}");
    assert_eq!((run.scorer.stats().model, run.scorer.stats().shadow), (2, 0));
}

#[test]
fn a_restless_shadow_is_turned_away() {
    let settings = config::Scorer { promote_after: Some(2000), retrain: None, ..settings() };
    let (mut run, mut office) = (Run::new(&settings), Office::new(8));
    run.ordinary(&mut office, 3000);
    let odd: Vec<FlowRecord> = (0..4000).map(|_| office.odd()).collect();
    let restless = candidate_of(features(&odd), None, &[]).in_use(9);
    run.scorer.accompany(Scope::All, Some(restless), &mut |_| ());
    run.ordinary(&mut office, 2600);
    assert!(run.news.iter().any(|news| matches!(news, News::Judged { id: 9, role: Role::Rejected, .. })));
    assert_eq!((run.scorer.stats().model, run.scorer.stats().shadow), (1, 0));
}

#[test]
fn drift_is_noticed_and_a_training_follows_where_it_is_wanted() {
    let settings = config::Scorer { retrain: None, retrain_on_drift: true, ..settings() };
    let (mut run, mut office) = (Run::new(&settings), Office::new(9));
    run.ordinary(&mut office, 12_000);
    assert_eq!(run.scorer.stats().drifts, 0, "steady traffic");
    assert_eq!(run.trained().len(), 1);
    // Sessions grow: within what was seen, but more often at its upper end.
    office.scale = 3.0;
    run.ordinary(&mut office, 8000);
    let found = run.news.iter().find_map(|news| match news {
        News::Drift { change, model, .. } => Some((*change, *model)),
        _ => None,
    });
    let (change, model) = found.unwrap();
    assert!(model == 1 && change.after > change.before, "{change:?}");
    let causes: Vec<Cause> = run.trained().iter().map(|(_, candidate)| candidate.cause).collect();
    assert_eq!(causes[..2], [Cause::WarmUp, Cause::Drift]);
}

#[test]
fn groups_with_enough_records_have_models_of_their_own() {
    let settings = config::Scorer { per_group: true, group_records: 2500, ..settings() };
    let (mut run, mut office) = (Run::new(&settings), Office::new(10));
    let make = |office: &mut Office, group: u32| {
        // Group 1 sends long sessions, which are unusual among all.
        let record = if group == 1 { office.odd() } else { office.ordinary() };
        FlowRecord { src_groups: GroupSetHandle(group), ..record }
    };
    for n in 0..9000 {
        let group = [0, 2, 2, 2, 2, 2, 2, 1, 3, 2][n % 10];
        // Mostly of its own kind, so that most of group 1 is learnt from at all.
        let record = if group == 1 && n < 3000 { office.ordinary() } else { make(&mut office, group) };
        run.take(record);
    }
    let scopes: Vec<Scope> = run.trained().iter().map(|(_, candidate)| candidate.scope).collect();
    assert!(scopes.contains(&Scope::Group(GroupSetHandle(2))), "{scopes:?}");
    assert!(!scopes.contains(&Scope::Group(GroupSetHandle(3))), "too few records: {scopes:?}");
    assert!(run.scorer.stats().group_models >= 1);
    // Scores of both scales mean the same.
    let group = run.unusual(2000, || make(&mut office, 2));
    let all = run.unusual(2000, || make(&mut office, 3));
    assert!(group < 0.04 && all < 0.04, "{group} {all}");
}

#[test]
fn a_training_that_panics_releases_its_seat() {
    // More trees than there is memory for.
    let settings = config::Scorer { warmup_records: 500, trees: usize::MAX, ..settings() };
    let (mut run, mut office) = (Run::new(&settings), Office::new(11));
    run.ordinary(&mut office, 1000);
    let told = run.news.iter().filter_map(|news| match news {
        News::Failed(failure) => Some(failure.reason.as_str()),
        _ => None,
    });
    let reasons: Vec<&str> = told.collect();
    assert_eq!(reasons.len(), 2, "the next warm-up was trained on as well: {reasons:?}");
    assert!(reasons[0].contains("the training broke off: capacity overflow"), "{reasons:?}");
    let stats = run.scorer.stats();
    assert_eq!((stats.rejected, stats.trained, run.out.len()), (2, false, 1000));
    // Aside likewise: the next job comes when the seat is free.
    let mut scorer = Scorer::new(&settings, 1).aside();
    let mut jobs = |scorer: &mut Scorer| {
        (0..600).for_each(|_| scorer.observe(office.ordinary(), &mut |_| ()));
        scorer.take_job()
    };
    let failure = jobs(&mut scorer).unwrap().run().unwrap_err();
    assert!(jobs(&mut scorer).is_none());
    scorer.release(failure.scope);
    assert!(jobs(&mut scorer).is_some());
}

#[test]
fn a_shadow_that_is_judged_aside_waits_for_the_decision() {
    let settings = config::Scorer { promote_after: Some(600), retrain: None, ..settings() };
    let (mut run, mut office) = (Run::new(&settings), Office::new(12));
    run.ordinary(&mut office, 3000);
    let (_, first) = run.trained()[0];
    let other = first.in_use(2);
    run.scorer = run.scorer.clone().aside();
    run.scorer.accompany(Scope::All, Some(other), &mut |_| ());
    run.ordinary(&mut office, 3000);
    let judged = run.news.iter().filter(|news| matches!(news, News::Judged { id: 2, against: 1, .. }));
    assert_eq!(judged.count(), 1, "said once");
    assert_eq!((run.scorer.stats().model, run.scorer.stats().shadow), (1, 2));
    // Of other models nothing is decided.
    for models in [(2, 7), (3, 1)] {
        run.scorer.decide(Scope::All, models, Role::Active, &mut |_| ());
        assert_eq!((run.scorer.stats().model, run.scorer.stats().shadow), (1, 2));
    }
    run.scorer.decide(Scope::All, (2, 1), Role::Shadow, &mut |_| ());
    run.ordinary(&mut office, 1200);
    let judged = run.news.iter().filter(|news| matches!(news, News::Judged { .. }));
    assert_eq!(judged.count(), 2, "compared anew");
    run.scorer.decide(Scope::All, (2, 1), Role::Active, &mut |_| ());
    assert_eq!((run.scorer.stats().model, run.scorer.stats().shadow), (2, 0));
}

#[test]
fn what_an_alert_was_raised_about_is_not_learnt_even_where_most_is_unusual() {
    let mut office = Office::new(13);
    let ordinary: Vec<FlowRecord> = (0..2000).map(|_| office.ordinary()).collect();
    let odd: Vec<FlowRecord> = (0..1000).map(|_| office.odd()).collect();
    let active = candidate_of(features(&ordinary), None, &[]).in_use(7);
    let held = held_candidate(features(&ordinary), active, features(&odd));
    assert!(held.objection.as_deref().unwrap().contains("promote it if that is how things are now"));
    assert_eq!((held.records, held.figures.admitted_unusual, held.figures.outliers), (2000, 0, 1000));
    assert!(held.figures.outliers_ordinary.unwrap() < 0.1, "{:?}", held.figures);
}
