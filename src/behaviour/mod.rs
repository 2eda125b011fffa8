//! Flow records → score, flags, alerts.
//!
//! In: [`FlowRecord`](crate::flow::FlowRecord)s, ordered by when they were emitted, and between them the
//! [`Observation`](crate::worker::Observation)s that are in no record. Out: every record
//! again, with its calibrated score and flags, and one alert per episode. Runs on the scorer's own
//! core; [`Scorer`] itself is pure: no thread, clock or file. When the ring in front of it is full
//! the workers drop records and count them; nothing is dropped in here, but the least recently used
//! hosts and pairs are forgotten, and counted.
//!
//! ```text
//! record ─► features ─► model ─► calibrated score ────┐
//!        ├► detect (attack patterns) ───────► flags ─┴─► scored record, alerts
//!        └► expect (group pairs)     ───────► unexpected intervals, alerts of volume
//! ARP, long DNS names ─► detect ──────────────────────► alerts
//! ```

mod alert;
mod bounded;
mod detect;
mod expect;
mod features;
mod host_risk;
mod life;
mod model;
mod outlier;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::too_many_arguments)]
mod scenarios;
mod scorer;

pub use alert::{Alert, AlertEvent, AlertKind, Evidence, Flags, Party, Rhythm, Status};
pub use detect::Host;
pub use expect::{
    ExpectSettings, Expectations, Lesson, PairInterval, PairKey, PairModel, PairVolume, Part, PortClass, QUANTITIES,
    QUANTITY_NAMES, Sequence, Service, Slice, What,
};
pub use features::{Extractor, FEATURES, Features, NAMES, SCHEMA};
pub use host_risk::HostRisk;
pub use life::{
    Adwin, Candidate, Cause, Change, Compared, Comparison, Failure, Figures, InUse, Job, News, Role, Scope,
};
pub use model::{BlobError, Calibration, FORMAT, Member, Members, Model, Rows, Scratch, Training};
pub use scorer::{ScoredRecord, Scorer, Stats};
