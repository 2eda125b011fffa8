//! Scored records → IPFIX messages (RFC 7011) → collectors, over UDP or TCP.
//!
//! - **In**: [`ScoredRecord`](crate::behaviour::ScoredRecord)s from the scorer's thread, by a bounded queue per collector.
//! - **Out**: messages of templates, options and data. Flows are biflows: what went back stands beside what went there, as
//!   reverse information elements (RFC 5103). Elements that have no standard one are gnomon's own; `docs/ipfix.md` lists
//!   them, and collectors that know RFC 5610 learn them from the stream.
//! - **Runs on**: one thread for each collector, not pinned.
//! - **When full**: the record is lost for that collector; counted, told in the statistics options, and a gap in the sequence
//!   numbers. In a replay the scorer waits instead.
//!
//! ```text
//! record ─► queue ─► columns ─► set ─► message ─► UDP, TCP ─► collector
//!                    names  ─► options ─┘  ▲
//!                    templates, again and again
//! ```
//!
//! Written here because no library fits: of the crates there are, `ipfixrw` (0.1, one release) and `netflow_parser` build
//! messages field by field in maps, without options, enterprise elements of variable length or reverse elements;
//! `flowscope` and `netring` encode flow types of their own.

mod collectors;
mod connection;
mod counters;
mod element;
mod message;
mod options;
mod record;
mod reference;
mod stream;
mod template;
mod wire;

pub use collectors::{Collectors, IpfixError};
pub use counters::{CollectorSummary, Counters};
pub use options::{Directory, SessionInfo};
pub use reference::ipfix_reference;
