//! Models of the scorer: who trains them, how they come in force, which records they will learn from.

use super::Scorer;
use crate::behaviour::ScoredRecord;
use crate::behaviour::detect::nanoseconds;
use crate::behaviour::features::Features;
use crate::behaviour::life::{
    Candidate, Cause, Change, Compared, InUse, Job, Judgement, News, Role, Scope, Seat, Taken,
};
use crate::behaviour::model::Training;
use crate::flow::FlowRecord;
use crate::rules::GroupSetHandle;
use crate::trie::Isa;

/// Source groups that have models of their own.
const MOST_GROUPS: usize = 64;
/// Share of the warm-up that must remain after attack traffic was taken out; else it is prolonged.
const LEAST_CLEAN: usize = 4;
/// Changes of the mean score that are told; of ordinary traffic it is a half.
const LEAST_DRIFT: f64 = 0.1;

impl Scorer {
    /// Scopes with what scores in them, and the shadow with what was compared.
    pub fn models(&self) -> impl Iterator<Item = (Scope, Option<&InUse>, Option<(&InUse, Compared)>)> {
        self.seats.iter().map(|seat| (seat.scope(), seat.active(), seat.shadow()))
    }

    /// Records kept for the next training for all traffic, and how many it needs.
    pub fn kept(&self) -> (u64, u64) {
        self.seats[0].kept()
    }

    /// The next training, where they are done aside. [`Scorer::settle`] gets what comes of it, or
    /// [`Scorer::release`] hears that nothing does.
    pub fn take_job(&mut self) -> Option<Job> {
        self.jobs.pop()
    }

    /// What happened since the last call.
    pub fn drain_news(&mut self) -> std::vec::Drain<'_, News> {
        self.news.drain(..)
    }

    /// Whether anything did.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// A model that was trained here has this number from now on, and the next one a higher one.
    pub fn renumber(&mut self, scope: Scope, from: u64, to: u64) {
        self.next_model = self.next_model.max(to + 1);
        if let Some(seat) = self.seat(scope) {
            self.seats[seat].renumber(from, to);
        }
    }

    /// Gives a candidate its place: records that came before it are scored by the model before it.
    pub fn settle(&mut self, candidate: &Candidate, id: u64, out: &mut impl FnMut(ScoredRecord)) {
        self.drain(out);
        self.place(candidate, id);
    }

    /// The training of a scope broke off; others may follow.
    pub fn release(&mut self, scope: Scope) {
        self.stats.rejected += 1;
        if let Some(seat) = self.seat(scope) {
            self.seats[seat].job_done();
        }
    }

    /// What becomes, from the next record on, of the shadow `id` that was judged beside the model `against`. Nothing, if
    /// these are no longer the models of the scope.
    pub fn decide(&mut self, scope: Scope, (id, against): (u64, u64), role: Role, out: &mut impl FnMut(ScoredRecord)) {
        self.drain(out);
        if let Some(seat) = self.seat(scope) {
            self.decided(seat, (id, against), role);
        }
    }

    /// From the next record on this model scores in a scope.
    pub fn activate(&mut self, scope: Scope, in_use: InUse, out: &mut impl FnMut(ScoredRecord)) {
        self.drain(out);
        if let Some(seat) = self.seat(scope) {
            self.come_in_force(seat, in_use);
        }
    }

    fn come_in_force(&mut self, seat: usize, in_use: InUse) {
        if self.seats[seat].scope() == Scope::All {
            self.stats.trained_on = in_use.records;
            self.warm = Vec::new();
        }
        self.seats[seat].activate(in_use);
        self.stats.swaps += 1;
    }

    /// From the next record on this model, or none, scores beside the active one.
    pub fn accompany(&mut self, scope: Scope, in_use: Option<InUse>, out: &mut impl FnMut(ScoredRecord)) {
        self.drain(out);
        if let Some(seat) = self.seat(scope) {
            self.seats[seat].accompany(in_use);
        }
    }

    /// A training of the model for all traffic is wanted, as a shadow or as configured; it begins when there are enough
    /// records.
    pub fn want_training(&mut self, shadow: Option<bool>) {
        self.seats[0].want(Cause::Asked, shadow);
    }

    /// Its number; it is made where there is none and there may be one more.
    fn seat(&mut self, scope: Scope) -> Option<usize> {
        let Scope::Group(group) = scope else { return Some(0) };
        if let Some(seat) = self.groups.get(&group) {
            return Some(*seat);
        }
        if self.seats.len() > MOST_GROUPS {
            return None;
        }
        self.seats.push(Seat::new(scope, self.config.group_records, self.seed));
        self.groups.insert(group, self.seats.len() - 1);
        Some(self.seats.len() - 1)
    }

    fn place(&mut self, candidate: &Candidate, id: u64) {
        let Some(seat) = self.seat(candidate.scope) else { return };
        self.seats[seat].job_done();
        match candidate.role() {
            Role::Active => self.come_in_force(seat, candidate.in_use(id)),
            Role::Shadow => self.seats[seat].accompany(Some(candidate.in_use(id))),
            Role::Rejected => self.stats.rejected += 1,
        }
    }

    /// Once a round, when no record waits: shadows that have scored enough, trainings that are due.
    pub(super) fn tend(&mut self) {
        let (now, shadow) = (self.last, self.config.shadow);
        let (retrain, training) = (self.config.retrain.map(nanoseconds), self.training());
        for at in 0..self.seats.len() {
            let judged = self.config.promote_after.and_then(|records| self.seats[at].judge_shadow(records));
            if let Some(Judgement { id, against, role, reason }) = judged {
                let scope = self.seats[at].scope();
                self.news.push(News::Judged { scope, id, against, at: now, role, reason });
                if !self.aside {
                    self.decided(at, (id, against), role);
                }
            }
            if let Some(job) = self.seats[at].due(now, retrain, shadow, training) {
                self.train(job);
            }
        }
    }

    fn decided(&mut self, seat: usize, (id, against): (u64, u64), role: Role) {
        if self.seats[seat].decide(id, against, role) {
            match role {
                Role::Active => self.stats.swaps += 1,
                Role::Shadow => {}
                Role::Rejected => self.stats.rejected += 1,
            }
        }
    }

    fn training(&self) -> Training {
        Training {
            members: self.config.members,
            trees: self.config.trees,
            sample: self.config.sample,
            contamination: self.config.contamination,
            seed: self.seed,
            isa: Isa::best(),
        }
    }

    /// Here and now, or by who takes the job.
    fn train(&mut self, job: Job) {
        if self.aside {
            return self.jobs.push(job);
        }
        match job.run() {
            Ok(candidate) => {
                let (candidate, id) = (Box::new(candidate), self.next_model);
                self.next_model += 1;
                self.place(&candidate, id);
                self.news.push(News::Trained { candidate, id });
            }
            Err(failure) => {
                self.release(failure.scope);
                self.news.push(News::Failed(failure));
            }
        }
    }

    pub(super) fn drifted(&mut self, seat: usize, at: u64, change: Change) {
        // Evenings differ from mornings, and that is found as well.
        if (change.after - change.before).abs() < LEAST_DRIFT {
            return;
        }
        self.stats.drifts += 1;
        let seat = &mut self.seats[seat];
        if self.config.retrain_on_drift {
            seat.want(Cause::Drift, None);
        }
        let model = seat.active().map_or(0, |in_use| in_use.id);
        self.news.push(News::Drift { scope: seat.scope(), model, at, change });
    }

    /// Keeps a scored record for the next training.
    pub(super) fn keep(&mut self, taken: Taken, r: &FlowRecord, score: f32, alerted: bool) {
        if self.config.per_group
            && r.src_groups != GroupSetHandle::default()
            && let Some(seat) = self.seat(Scope::Group(r.src_groups))
        {
            self.seats[seat].keep(taken.clone(), r.emitted, Some(score), alerted);
        }
        self.seats[0].keep(taken, r.emitted, Some(score), alerted);
    }

    /// Keeps the record for the first training, and trains when there are enough of them.
    pub(super) fn warm_up(&mut self, taken: Taken, r: &FlowRecord) {
        if self.seats[0].is_busy() {
            return self.seats[0].keep(taken, r.emitted, None, false);
        }
        if self.warm.is_empty() {
            self.warm_from = r.emitted;
        }
        self.warm.push(taken);
        let wanted = self.config.warmup_records.max(2);
        if self.warm.len() < wanted {
            return;
        }
        let (before, attacks) = (self.warm.len(), self.seats[0].attacks());
        self.warm.retain(|taken| !attacks.have(taken));
        self.stats.excluded += (before - self.warm.len()) as u64;
        if self.warm.len() < wanted.div_ceil(LEAST_CLEAN) {
            return;
        }
        let rows: Vec<Features> = self.warm.drain(..).map(|taken| taken.features).collect();
        let (span, training) = ((self.warm_from, r.emitted), self.training());
        let job = self.seats[0].first(rows, span, self.stats.excluded, training);
        self.train(job);
    }
}
