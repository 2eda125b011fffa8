//! When unusual records become an alert about their source.
//!
//! A share of `contamination` of ordinary traffic is called unusual by construction, so a single
//! unusual record is only a flag. An episode is opened for a source when, within the window, it has at
//! least five unusual records and four times as many as its amount of traffic would have by chance,
//! or three that are more unusual than everything in the warm-up. Tries that failed do not count: scans and floods are
//! counted by detectors, and what else fails is a server that is down. An episode is over after half an hour without
//! unusual records. At most 16 episodes are opened in a window; what is above is counted.

use super::alert::{AlertKind, Party};
use super::bounded::Recent;
use super::detect::{Host, Key};

const LEAST: u32 = 5;
const LEAST_BEYOND: u32 = 3;
const TIMES_CHANCE: f64 = 4.0;
const SOURCES: usize = 16_384;
const OPENINGS: u32 = 16;

/// Records of one source, unusual ones, and those beyond the warm-up, this half window and the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    epoch: u64,
    now: [u32; 3],
    before: [u32; 3],
}

/// Unusual records per source.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    window: u64,
    contamination: f64,
    sources: Recent<Host, Share>,
    epoch: u64,
    openings: u32,
    suppressed: u64,
}

impl Watch {
    /// `window` in nanoseconds.
    pub(crate) fn new(window: u64, contamination: f64) -> Self {
        let sources = Recent::new(SOURCES);
        Self { window: window.max(2), contamination, sources, epoch: 0, openings: 0, suppressed: 0 }
    }

    /// The episode an unusual record of `source` belongs to.
    pub(crate) fn key(source: Host) -> Key {
        Key { kind: AlertKind::Outlier, actor: Party::Host(source), victim: Party::Many }
    }

    /// Counts a record; true when its source stands out.
    pub(crate) fn note(&mut self, source: Host, emitted: u64, unusual: bool, beyond: bool) -> bool {
        let epoch = emitted / (self.window / 2);
        let share = self.sources.get_or(source, Share::default);
        if epoch > share.epoch {
            let before = if epoch == share.epoch + 1 { share.now } else { [0; 3] };
            *share = Share { epoch, now: [0; 3], before };
        }
        for (count, is) in share.now.iter_mut().zip([true, unusual, beyond]) {
            *count = count.saturating_add(u32::from(is));
        }
        let [all, odd, far] = [0, 1, 2].map(|i| share.now[i].saturating_add(share.before[i]));
        let excess = odd >= LEAST && f64::from(odd) >= TIMES_CHANCE * self.contamination * f64::from(all);
        unusual && (far >= LEAST_BEYOND || excess)
    }

    /// Whether one more episode may be opened at flow time `emitted`; if not, that is counted.
    pub(crate) fn may_open(&mut self, emitted: u64) -> bool {
        let epoch = emitted / self.window;
        if epoch > self.epoch {
            (self.epoch, self.openings) = (epoch, 0);
        }
        let allowed = self.openings < OPENINGS;
        self.openings += u32::from(allowed);
        self.suppressed += u64::from(!allowed);
        allowed
    }

    /// Records that would have opened an episode.
    pub(crate) fn suppressed(&self) -> u64 {
        self.suppressed
    }

    pub(crate) fn entries(&self) -> usize {
        self.sources.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.sources.evicted()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn host(addr: u128) -> Host {
        Host { version: 4, addr, vlan: 0, vni: 0 }
    }

    #[test]
    fn chance_is_not_enough() {
        let mut watch = Watch::new(1_000_000, 0.01);
        for i in 0..10_000u64 {
            assert!(!watch.note(host(1), i, i % 100 == 99, false), "{i}");
        }
        assert!((1..5).all(|i| !watch.note(host(2), i, true, false)));
        assert!(watch.note(host(2), 3, true, false));
        assert!((1..3).all(|i| !watch.note(host(3), i, true, true)));
        assert!(watch.note(host(3), 3, true, true));
        assert!(!watch.note(host(2), 4, false, false));
        // Two windows later all is forgotten.
        assert!(!watch.note(host(2), 3_000_000, true, false));
    }

    #[test]
    fn openings_are_limited() {
        let mut watch = Watch::new(1000, 0.01);
        let opened = (0..5000).filter(|_| watch.may_open(10)).count();
        assert_eq!((opened, watch.suppressed()), (16, 4984));
        assert!(watch.may_open(1010));
    }
}
