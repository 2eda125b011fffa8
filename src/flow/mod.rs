//! Flow table, state, time-outs → [`FlowRecord`].
//!
//! - **In**: one [`FlowPacket`] per packet, from the worker's parser; the clock.
//! - **Out**: a [`FlowIx`] under which the worker caches verdicts, and [`FlowRecord`]s into a [`RecordSink`].
//! - **Runs on**: the worker's lcore. One table per worker, one owner; nothing is shared, nothing allocates after `new`.
//! - **When full**: half-open, one-way and closed flows give way, the oldest first; when there are none, established
//!   flows long silent; when there are none of these the packet gets [`TableFull`]. Each is counted by kind. Records go
//!   to the sink; what a full ring does with them is the sink's business.
//! - **Memory**: all of it is reserved at the start and never moved, so there is no pause at any size. 128 bytes a flow
//!   (32 more for IPv6 and virtual networks) and 13.5 bytes of index and bounds at capacity.
//!
//! ```text
//!   tuple ─► Lookup: packed key, hash ─► index: bucket of ten tags ─► slab: entry, two lines ─┬─► verdicts: few, counted
//!            prepare (burst)             locate (burst)               touch (packet by packet) └─► annex: wide keys
//! ```
//!
//! Expiry: [`FlowTable::sweep`] goes round a bound for each eight flows of when something may next happen to one of them,
//! and looks only at flows whose bound has come. [`FlowTable::watermark`] says how far that has got.
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
//! | full counter | clock of the packet that it has no room for (a slice of terabytes) | that packet |
//!
//! ICMP errors about a flow are counted in its slice and are nothing else to it: no time-out begins anew, and they act
//! on what happened before them as sweeps do.
//!
//! TCP segments that are refused are counted, in no gap, and no time-out begins anew with them either.
//!
//! Exactly one record of a flow has a reason other than [`EndReason::Active`]; its counters are zero if nothing came
//! after the last slice ([`FlowRecord::is_empty`]).
mod bitset;
mod due;
mod entropy;
mod entry;
mod index;
mod key;
mod memory;
mod probe;
mod record;
mod slab;
mod table;
mod tcp;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod verdicts;

pub use entropy::{Entropy, SAMPLE};
pub use entry::{FlowEntry, FlowPacket, TimeoutsNs};
pub use key::Lookup;
pub use record::{EndReason, FlowRecord, FlowState, Spread, TO_CLIENT, TO_SERVER};
pub use table::{Effort, FlowIx, FlowStats, FlowTable, RecordSink, TableFull, Touch};
pub use tcp::{Moment, Seen, Segment, TcpRules, TcpState, TcpTrack, WindowCheck};
