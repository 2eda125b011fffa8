//! Flow table, state, time-outs → [`FlowRecord`].
//!
//! - **In**: one [`FlowPacket`] per packet, from the worker's parser; the clock.
//! - **Out**: a [`FlowIx`] under which the worker caches verdicts, and [`FlowRecord`]s into a [`RecordSink`].
//! - **Runs on**: the worker's lcore. One table per worker, one owner; nothing is shared, nothing allocates after `new`.
//! - **When full**: half-open and closed flows give way first, then flows long silent; when neither exists the packet
//!   gets [`TableFull`] and is counted. Records go to the sink; what a full ring does with them is the sink's business.
//!
//! # Flow time
//! What is recorded depends on the packets of the flow and on nothing else, so the same traffic gives the same records
//! whatever the number of workers and however often [`FlowTable::sweep`] runs (as long as nothing is evicted). With
//! `last` the clock of the flow's latest packet and `slice_start` the clock of the first packet since the latest slice:
//!
//! | event | happens (`emitted`) | acts on |
//! | --- | --- | --- |
//! | time-out | `last + timeout(state)` | packets and sweeps strictly later |
//! | slice | `slice_start + active`, if the slice has packets and the time-out is later than this | packets and sweeps strictly later |
//! | new connection | clock of a SYN without ACK on a closed flow | that packet |
//!
//! Exactly one record of a flow has a reason other than [`EndReason::Active`]; its counters are zero if nothing came
//! after the last slice ([`FlowRecord::is_empty`]).
mod entropy;
mod entry;
mod index;
mod record;
mod slab;
mod spread;
mod table;
mod tcp;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use entropy::{Entropy, SAMPLE};
pub use entry::{FlowEntry, FlowPacket};
pub use record::{EndReason, FlowRecord, FlowState, Spread, TO_CLIENT, TO_SERVER};
pub use spread::{Gaps, Sizes};
pub use table::{FlowIx, FlowStats, FlowTable, Lookup, RecordSink, TableFull, Touch};
pub use tcp::{Moment, Seen, Segment, TcpRules, TcpState, TcpTrack, WindowCheck};
