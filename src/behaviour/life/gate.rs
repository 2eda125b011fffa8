//! What keeps an attack from being learnt as ordinary.
//!
//! | gate | what it holds back |
//! | --- | --- |
//! | detectors | records that are flagged as part of an attack, all others of its source, and unanswered ones to the victim of a flood |
//! | score | records that the active model calls unusual, beyond the one in a hundred that is so by chance, spread over scores and hosts as chance does |
//! | alerts | records of an outlier episode: never learnt |
//! | hold | a window of which more than [`HOLD`] is unusual: the model that comes of it, without what an alert was raised about, waits for a person |
//! | reference | a candidate that calls more than [`REFERENCE`] of what the active model learnt from unusual |
//! | outliers | a candidate that calls more than [`ORDINARY`] of the outliers of the window ordinary: those with an alert, and all of them where there were more than [`CALM`] |

/// Calibrated scores from here on are unusual.
pub(super) const UNUSUAL: f32 = 0.99;
/// Share of ordinary traffic that is unusual by chance, as the calibration says.
pub(super) const CHANCE: f64 = 0.01;
/// Most unusual records of one source, or to one destination, that are learnt from, of each part of the scale: a
/// quarter, or so many.
pub(super) const SHARE_OF_HOST: usize = 4;
pub(super) const OF_HOST: usize = 4;
/// Largest share of unusual records in a window without a burst.
pub(super) const CALM: f64 = 0.02;
/// Largest share of unusual records in a window that is still the same traffic.
pub(super) const HOLD: f64 = 0.5;
/// Largest share of the reference that a candidate may call unusual.
pub(super) const REFERENCE: f64 = 0.1;
/// Below this score an outlier of yesterday is ordinary; largest share of them that may be; fewest that decide.
pub(super) const PLAIN: f32 = 0.9;
pub(super) const ORDINARY: f64 = 0.5;
pub(super) const OUTLIERS: usize = 20;
/// An active model of fewer records calls much unusual that is not: what it says of outliers does not count.
pub(super) const SURE: u64 = 2048;
/// A shadow that calls more than this share of records unusual is not promoted by itself, unless the active model calls
/// a third of that unusual as well.
pub(super) const RESTLESS: f64 = 0.05;
