//! Scored records and alerts → files that other people's scripts read.
//!
//! In: [`ScoredRecord`](crate::behaviour::ScoredRecord)s and
//! [`Alert`](crate::behaviour::Alert)s. Out: EVE-shaped JSON, one object a line, byte for byte the same
//! for the same input. Runs on the scorer's core, or on any other that is no worker. Nothing is
//! dropped in here: a write error is returned, with the path, and the caller decides.

mod community_id;
mod eve;
mod exports;
mod files;
mod ipfix;
mod time;

pub use community_id::community_id;
pub use eve::{Names, write_alert, write_flow};
pub use exports::Exports;
pub use files::{ExportError, Files};
pub use ipfix::{
    CollectorSummary, Collectors, Counters as CollectorCounters, Directory, IpfixError, SessionInfo, ipfix_reference,
};
pub use time::iso8601;
