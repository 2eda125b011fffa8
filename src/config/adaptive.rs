//! Whom to look at more closely, and honeypots: the part of the configuration that mirrors with `adapt` go by.

use std::time::Duration;

use crate::behaviour::{AlertKind, Flags};
use crate::mirror::Cap;
use crate::packet::Mac;

/// How alerts and risks change what is mirrored.
#[derive(Clone, Debug, PartialEq)]
pub struct Adaptive {
    /// How often it is decided.
    pub interval: Duration,
    /// From risk to share, both ascending.
    pub levels: Vec<Level>,
    /// A level is left when the risk says that so many times more of what is normal is that unusual.
    pub hysteresis: f64,
    /// Kinds of alert that count, a bit each.
    pub alerts: u32,
    /// Share of the flows of those with one.
    pub flagged: f64,
    /// Alerts of this severity number and below count.
    pub severity: u8,
    /// How long after the last reason a party is watched.
    pub hold: Duration,
    /// Of all adaptive sessions together.
    pub budget: Cap,
    /// Most parties.
    pub most: usize,
    pub graylist: Option<Graylist>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Risk from which on it holds.
    pub score: f64,
    pub share: f64,
}

/// Those with an alert are watched whole for a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graylist {
    /// Kinds of alert that put who does it there, a bit each.
    pub alerts: u32,
    pub period: Duration,
    pub escalate: Escalation,
}

/// What follows when alerts went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// Another period.
    Watch,
    /// What they begin goes to the honeypot at this position.
    Divert(usize),
}

/// A host that takes connections in the place of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Honeypot {
    pub name: String,
    /// `None` in a file without ports.
    pub port: Option<usize>,
    pub mac: Mac,
}

impl Default for Adaptive {
    /// A host whose traffic is as unusual as one record in a thousand of normal ones finds them is looked at a quarter,
    /// one in ten thousand whole. Alerts say what is done, but for `outlier`, which says no more than the risk. A minute
    /// is longer than most tools wait between two attempts.
    fn default() -> Self {
        let level = |score, share| Level { score, share };
        Self {
            interval: Duration::from_millis(100),
            levels: vec![level(0.999, 0.25), level(0.9999, 1.0)],
            hysteresis: 10.0,
            alerts: !(1 << AlertKind::Outlier as u8),
            flagged: 1.0,
            severity: 3,
            hold: Duration::from_secs(60),
            budget: Cap::default(),
            most: 4096,
            graylist: None,
        }
    }
}

impl Default for Graylist {
    /// Kinds by which somebody goes for others, not those that may as well be a backup, an update or a new service.
    fn default() -> Self {
        use AlertKind::{BruteForce, DnsTunnel, HostSweep, IcmpTunnel, PortScan, SlowHttp};
        let kinds = [PortScan, HostSweep, BruteForce, SlowHttp, DnsTunnel, IcmpTunnel];
        let alerts = kinds.into_iter().collect::<Flags>().bits();
        Self { alerts, period: Duration::from_secs(600), escalate: Escalation::Watch }
    }
}
