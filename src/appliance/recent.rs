//! What the scorer found lately, for those who look at the running appliance.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::scoring::PairTraffic;
use crate::behaviour::{Alert, ScoredRecord};
use crate::filter::Scored;
use crate::flow::EndReason;
use crate::rules::GroupSetHandle;

/// Live flows whose score is remembered; of more, nothing is known.
const MOST_SCORES: usize = 1 << 20;
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
    /// By flow id, of flows that had an interim record.
    scores: HashMap<u64, Scored>,
    /// Latest first, one an episode.
    alerts: VecDeque<Alert>,
    pairs: HashMap<Pair, PairTraffic>,
}

impl Recent {
    /// Notes a record, and all traffic so far of its pair of groups where that is counted.
    pub fn record(&self, scored: &ScoredRecord, pair: Option<(Pair, PairTraffic)>) {
        let mut inner = self.lock();
        let id = scored.record.flow_id;
        if scored.record.reason != EndReason::Active {
            inner.scores.remove(&id);
        } else if inner.scores.len() < MOST_SCORES || inner.scores.contains_key(&id) {
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
        self.lock().scores.get(&flow_id).copied()
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
