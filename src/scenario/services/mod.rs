//! What the groups do all day. Each service opens conversations; how often follows the time of day.

pub(super) mod app;
pub(super) mod backup;
pub(super) mod database;
pub(super) mod dns;
pub(super) mod iot;
pub(super) mod monitoring;
pub(super) mod ntp;
pub(super) mod ssh;
pub(super) mod web;

use crate::scenario::dice::Dice;
use crate::scenario::merge::Source;
use crate::scenario::rhythm::activity;
use crate::scenario::stage::Stage;
use crate::scenario::topology::{Kind, Topology};

/// Opens one conversation of a service at a time.
type Open = fn(&mut Stage<'_>, &mut Dice, u64);

/// A service whose conversations begin at random.
struct Service {
    open: Open,
    /// Share of all new flows, before services without their groups are taken out.
    weight: f64,
    /// Groups that must take part.
    needs: &'static [Kind],
}

const SERVICES: [Service; 6] = [
    Service { open: web::open, weight: 0.40, needs: &[Kind::Clients, Kind::Web] },
    Service { open: app::open, weight: 0.20, needs: &[Kind::Web, Kind::App] },
    Service { open: database::open, weight: 0.12, needs: &[Kind::App, Kind::Db] },
    Service { open: dns::open, weight: 0.25, needs: &[Kind::Dns] },
    Service { open: iot::open, weight: 0.02, needs: &[Kind::Iot, Kind::App] },
    Service { open: ssh::open, weight: 0.01, needs: &[Kind::Admin] },
];

/// Starts all services on the stage; `rate` is new flows a second at the busiest hour.
pub(super) fn start(stage: &mut Stage<'_>, rate: f64, seed: u64) {
    let takes_part = |t: &Topology, s: &Service| s.needs.iter().all(|&k| t.has(k));
    let total: f64 = SERVICES.iter().filter(|s| takes_part(stage.topology, s)).map(|s| s.weight).sum();
    let now = stage.start_ns;
    for (n, service) in SERVICES.iter().enumerate() {
        if rate > 0.0 && takes_part(stage.topology, service) {
            let mut dice = Dice::new(seed, 100 + n as u64);
            let mean_gap_ns = 1e9 * total / (rate * service.weight);
            let first = now + dice.exponential(mean_gap_ns) as u64;
            stage.spawn(first, Arrivals { open: service.open, mean_gap_ns, dice });
        }
    }
    ntp::start(stage, &mut Dice::new(seed, 200));
    monitoring::start(stage, &mut Dice::new(seed, 201));
    let share = if rate > 0.0 { rate.min(1.0) } else { 1.0 };
    backup::start(stage, share, &mut Dice::new(seed, 202));
}

/// A Poisson process, thinned by the time of day.
struct Arrivals {
    open: Open,
    /// At the busiest hour.
    mean_gap_ns: f64,
    dice: Dice,
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").field("mean_gap_ns", &self.mean_gap_ns).finish_non_exhaustive()
    }
}

impl Source for Arrivals {
    fn fire(&mut self, now: u64, stage: &mut Stage<'_>) -> Option<u64> {
        if self.dice.chance(activity(now)) {
            (self.open)(stage, &mut self.dice, now);
        }
        Some(now + self.dice.exponential(self.mean_gap_ns) as u64 + 1)
    }
}

/// Milliseconds.
const MS: u64 = 1_000_000;
/// Seconds.
const S: u64 = 1_000_000_000;
