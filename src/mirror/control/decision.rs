//! What was decided, for logs and for people who ask why.

use super::super::watch::Party;

/// What a decision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// More of the party's flows are taken.
    Raise,
    /// Fewer, but still more than of others.
    Lower,
    /// It is watched whole for a period, at the end of which it is released or escalated.
    Graylist,
    /// What it does went on during the period.
    Escalate,
    /// Flows that it begins go to a honeypot from now on.
    Divert,
    /// It is treated as everybody else again.
    Release,
    /// A person said so.
    Set,
    /// The budget changed what is left of a class's shares.
    Budget,
}

/// One decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Flow time, nanoseconds.
    pub at: u64,
    pub action: Action,
    /// Whom it is about; nobody in particular for [`Action::Budget`].
    pub party: Option<Party>,
    /// Share of the party's flows that adaptive sessions take at least, before and after, 0..=1. Of a budget: the part
    /// that is left.
    pub before: f64,
    pub after: f64,
    pub score: f64,
    pub flags: u32,
    /// Class that a budget is about.
    pub class: u8,
    pub reason: String,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Action::Raise => "raise",
            Action::Lower => "lower",
            Action::Graylist => "graylist",
            Action::Escalate => "escalate",
            Action::Divert => "divert",
            Action::Release => "release",
            Action::Set => "set",
            Action::Budget => "budget",
        }
    }

    pub(super) fn of_change(before: f64, after: f64) -> Option<Self> {
        match () {
            () if after > before => Some(Action::Raise),
            () if after < before && after > 0.0 => Some(Action::Lower),
            () if after < before => Some(Action::Release),
            () => None,
        }
    }
}

impl Decision {
    pub(super) fn release(at: u64, party: Party, before: f64, reason: String) -> Self {
        let action = Action::Release;
        Self { at, action, party: Some(party), before, after: 0.0, score: 0.0, flags: 0, class: 0, reason }
    }

    pub(super) fn budget(at: u64, class: u8, before: f64, after: f64) -> Self {
        let whose = if class == 0 { "everybody".to_owned() } else { format!("the watched of class {class}") };
        let reason = format!("the mirror budget leaves {:.0} % of what would be taken of {whose}", after * 100.0);
        Self { at, action: Action::Budget, party: None, before, after, score: 0.0, flags: 0, class, reason }
    }
}
