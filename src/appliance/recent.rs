//! What the scorer found lately, for those who look at the running appliance.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::scoring::PairTraffic;
use crate::behaviour::{Alert, ScoredRecord};
use crate::filter::Scored;
use crate::flow::EndReason;
use crate::rules::GroupSetHandle;

/// Live flows whose score is remembered: at least so many of those scored last, at most twice as many.
const SCORES: usize = 1 << 19;
const MOST_ALERTS: usize = 100;

/// A pair of group sets, initiator first.
pub type Pair = (GroupSetHandle, GroupSetHandle);

/// Written by the scorer's thread, read by control threads; workers never come here.
#[derive(Debug, Default)]
pub struct Recent {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By flow id, of flows that had an interim record: the later ones, and those before. When there are enough later
    /// ones, those before are forgotten: some have ended, with a final record that was lost.
    scores: HashMap<u64, Scored>,
    earlier: HashMap<u64, Scored>,
    /// Latest first, one an episode.
    alerts: VecDeque<Alert>,
    pairs: HashMap<Pair, PairTraffic>,
}

impl Recent {
    /// Notes a record, and all traffic so far of its pair of groups where that is counted.
    pub fn record(&self, scored: &ScoredRecord, pair: Option<(Pair, PairTraffic)>) {
        let mut inner = self.lock();
        let id = scored.record.flow_id;
        inner.scores.remove(&id);
        inner.earlier.remove(&id);
        if scored.record.reason == EndReason::Active {
            if inner.scores.len() >= SCORES {
                inner.earlier = mem::take(&mut inner.scores);
            }
            inner.scores.insert(id, Scored { score: scored.score, flags: scored.flags });
        }
        inner.pairs.extend(pair);
    }

    /// Notes what is new of an episode.
    pub fn alert(&self, alert: &Alert) {
        let mut inner = self.lock();
        inner.alerts.retain(|other| other.episode != alert.episode);
        inner.alerts.push_front(alert.clone());
        inner.alerts.truncate(MOST_ALERTS);
    }

    /// What was said of the latest record of a flow.
    pub fn scored(&self, flow_id: u64) -> Option<Scored> {
        let inner = self.lock();
        inner.scores.get(&flow_id).or_else(|| inner.earlier.get(&flow_id)).copied()
    }

    /// The latest episodes, latest first.
    pub fn alerts(&self, most: usize) -> Vec<Alert> {
        self.lock().alerts.iter().take(most).cloned().collect()
    }

    /// The pairs with the most bytes, those first.
    pub fn pairs(&self, most: usize) -> Vec<(Pair, PairTraffic)> {
        let mut pairs: Vec<_> = self.lock().pairs.iter().map(|(pair, traffic)| (*pair, *traffic)).collect();
        pairs.sort_unstable_by_key(|(pair, traffic)| (std::cmp::Reverse(traffic.bytes), *pair));
        pairs.truncate(most);
        pairs
    }

    /// Nothing is left half-changed by a panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Flags;
    use crate::flow::FlowRecord;

    fn note(recent: &Recent, flow_id: u64, reason: EndReason) {
        let record = FlowRecord { flow_id, reason, ..FlowRecord::default() };
        recent.record(&ScoredRecord { record, score: Some(0.5), flags: Flags::default() }, None);
    }

    #[test]
    fn flows_whose_end_was_never_heard_of_give_way_to_new_ones() {
        let recent = Recent::default();
        let many = 3 * SCORES as u64;
        (0..many).for_each(|id| note(&recent, id, EndReason::Active));
        assert!(recent.scored(0).is_none());
        assert!((many - SCORES as u64..many).all(|id| recent.scored(id).is_some()));
        // Early or late, an end is one, and what is heard of again stays.
        note(&recent, many - SCORES as u64, EndReason::Active);
        note(&recent, many - 1, EndReason::Idle);
        assert!(recent.scored(many - SCORES as u64).is_some() && recent.scored(many - 1).is_none());
    }
}
