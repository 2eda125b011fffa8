//! The parts put together: live on ports, or over a capture.
//!
//! In: a [`Config`](crate::config::Config). Out: running workers, a scorer thread, files, a [`Summary`]. Runs on
//! the control thread; nothing in here touches a packet, except replay's collector, which writes them to files.
//! When full: see the worker; replay's consumers never stop draining, so its workers always get on.

mod adaptation;
mod clerk;
mod collect;
mod health;
mod keeper;
mod library;
mod live;
mod merge;
mod metrics;
mod neighbours;
mod notes;
mod observed;
mod office;
mod outages;
mod policy;
mod pools;
mod ports;
mod pressure;
mod recent;
mod replay;
mod scoring;
mod totals;

pub use adaptation::Watchers;
pub use clerk::{Clerk, Feed, imported};
pub use keeper::{Board, BoardLine, Desk, Order};
pub use library::{Library, load as load_model, scope_name, store_path};
pub use live::{Appliance, Finished, eal_options};
pub use policy::{PolicyHost, PolicyNames, Targets, with_policy};
pub use pools::Pools;
pub use ports::LivePort;
pub use recent::Recent;
pub use replay::{Progress, ReplayOptions, ReplayTrace, Replayed, replay};
pub use scoring::{PairTraffic, Scored, ScorerCounters, unix_nanoseconds};
pub use totals::{Mirrored, Quantiles, RuleHits, Summary};
