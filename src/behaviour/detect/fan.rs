//! Distinct targets one actor tried lately, and how many of the tries failed.

use super::episode::Key;

/// One target, at its latest try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Try {
    /// Start of the flow, nanoseconds.
    pub(crate) time: u64,
    /// Port with protocol, or address.
    pub(crate) target: [u64; 2],
    pub(crate) flow_id: u64,
    pub(crate) failed: bool,
}

pub(crate) fn words(target: u128) -> [u64; 2] {
    [(target >> 64) as u64, target as u64]
}

/// How many distinct targets within one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) failed: usize,
    pub(crate) total: usize,
}

/// The latest distinct targets, each once. Records come in order of their end, so tries come out of
/// order; each keeps its own time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fan {
    tries: Vec<Try>,
    /// The episode that these tries are part of.
    pub(crate) episode: Option<Key>,
}

impl Fan {
    /// Notes a try and counts the targets tried within `window` before it, or after it, whichever has
    /// more failures. Keeps at most `cap` targets; the oldest goes first. A target that answered
    /// within the window is not failed.
    pub(crate) fn note(&mut self, t: Try, window: u64, cap: usize) -> Tally {
        match self.tries.iter_mut().find(|old| old.target == t.target) {
            Some(old) => {
                let lately = old.time.abs_diff(t.time) < window;
                if !t.failed && (lately || t.time >= old.time) {
                    *old = Try { time: old.time.max(t.time), flow_id: old.flow_id, ..t };
                } else if t.failed && t.time >= old.time && (old.failed || !lately) {
                    *old = Try { flow_id: old.flow_id, ..t };
                }
            }
            None => {
                if self.tries.len() >= cap.max(1) {
                    self.forget_oldest();
                }
                self.tries.push(t);
            }
        }
        self.around(t.time, window)
    }

    /// Targets tried within `window` before `time` or after it, whichever has more failures.
    pub(crate) fn around(&self, time: u64, window: u64) -> Tally {
        let before = self.tally(time.saturating_add(1).saturating_sub(window), time);
        let after = self.tally(time, time.saturating_add(window - window.min(1)));
        if after.failed > before.failed { after } else { before }
    }

    /// The failed tries, oldest first.
    pub(crate) fn failed(&self, around: u64, window: u64) -> Vec<Try> {
        let near = |t: &&Try| t.failed && t.time.abs_diff(around) <= window;
        let mut tries: Vec<Try> = self.tries.iter().filter(near).copied().collect();
        tries.sort_by_key(|t| (t.time, t.target));
        tries
    }

    /// After an episode is over: what was part of it does not lead to another.
    pub(crate) fn restart(&mut self, from: u64) {
        self.tries.retain(|t| t.time >= from);
        self.episode = None;
    }

    fn tally(&self, from: u64, to: u64) -> Tally {
        let mut tally = Tally::default();
        for t in self.tries.iter().filter(|t| t.time >= from && t.time <= to) {
            tally.total += 1;
            tally.failed += usize::from(t.failed);
        }
        tally
    }

    fn forget_oldest(&mut self) {
        if let Some((oldest, _)) = self.tries.iter().enumerate().min_by_key(|(_, t)| t.time) {
            self.tries.swap_remove(oldest);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn a_try(time: u64, target: u128, failed: bool) -> Try {
        Try { time, target: words(target), flow_id: time, failed }
    }

    #[test]
    fn counts_distinct_targets_in_the_window() {
        let mut fan = Fan::default();
        for i in 0..10 {
            assert_eq!(fan.note(a_try(i, u128::from(i), true), 5, 100).failed, (i + 1).min(5) as usize);
        }
        assert_eq!(fan.note(a_try(9, 9, true), 5, 100).failed, 5);
        // Late news from the past counts with its own time.
        assert_eq!(fan.note(a_try(2, 77, true), 5, 100).failed, 6);
    }

    #[test]
    fn an_answer_clears_a_target() {
        let mut fan = Fan::default();
        fan.note(a_try(1, 1, true), 100, 10);
        assert_eq!(fan.note(a_try(2, 1, false), 100, 10), Tally { failed: 0, total: 1 });
        assert_eq!(fan.note(a_try(3, 1, true), 100, 10), Tally { failed: 0, total: 1 });
        assert_eq!(fan.note(a_try(500, 1, true), 100, 10), Tally { failed: 1, total: 1 });
    }

    #[test]
    fn is_bounded() {
        let mut fan = Fan::default();
        for i in 0..1000u64 {
            assert!(fan.note(a_try(i, u128::from(i), true), u64::MAX, 16).total <= 16);
        }
        assert_eq!(fan.failed(999, 100).len(), 16);
        assert_eq!(fan.failed(999, 100)[0].time, 984);
    }
}
