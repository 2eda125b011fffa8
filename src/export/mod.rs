//! Scored records and alerts → files that other people's scripts read.
//!
//! In: [`ScoredRecord`](crate::behaviour::ScoredRecord)s and
//! [`Alert`](crate::behaviour::Alert)s. Out: EVE-shaped JSON, one object a line, byte for byte the same
//! for the same input. Lines are made on the scorer's core; threads that may wait write them to files, which are put
//! aside when they are large or old enough, and to Unix sockets. In a replay nothing is dropped: the scorer waits, and a
//! write error ends the run. Live, what finds no room on its way to a disk or reader is dropped, whole lines at a time,
//! and counted.

mod community_id;
mod decisions;
mod eve;
mod event_socket;
mod exports;
mod files;
mod health;
mod ipfix;
mod log_file;
mod outputs;
mod pairs;
mod time;

pub use community_id::community_id;
pub use decisions::{PartyLine, write_decision};
pub use eve::{Names, protocol_name, write_alert, write_flow};
pub use exports::Exports;
pub use files::{ExportError, Files};
pub use health::{
    Capture, Decoder, Detect, FlowStats, GnomonStats, OUTAGE, OutageAlert, OutputStats, PRESSURE, PressureAlert, Stats,
    StatsEvent,
};
pub use ipfix::{
    CollectorSummary, Collectors, Counters as CollectorCounters, Directory, IpfixError, SessionInfo, ipfix_reference,
};
pub use outputs::OutputCounters;
pub use time::iso8601;
