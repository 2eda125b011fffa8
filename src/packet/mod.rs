//! Frame bytes → checked headers → [`FlowKey`].
//!
//! In: the captured bytes of one Ethernet frame and its length on the wire. Out: [`Headers`] and, of
//! these, the [`crate::rules::Subject`] that rules and flows are keyed by; or the first fault, with
//! whatever was understood before it. Runs on the worker that received the frame and keeps nothing
//! between frames, except the worker's own [`Fragments`] table. Nothing is dropped here: the worker
//! drops by [`Malformed`]. When the fragment table is full, the oldest entry of the neighbourhood gives
//! way, which is counted, and its later fragments go without ports.
//!
//! ```text
//! frame ─ cursor ─► walk: link → ip → l4 → tunnel → (link or ip again) ─┬─► parse:  Headers ─► subject
//!                                                                       └─► layers: Vec<Layer>
//! ```
mod cursor;
pub mod checksum;
mod dns;
mod domain;
mod drop;
mod fingerprint;
mod fragments;
mod headers;
mod host;
mod ip;
mod key;
mod l4;
mod layers;
mod link;
mod parse;
mod quoted;
#[cfg(test)]
mod samples;
mod spread;
mod subject;
#[cfg(test)]
mod tests;
mod tunnel;
mod walk;

pub use dns::{Question, long_question};
pub use domain::Domain;
pub use drop::{DropReason, Malformed};
pub use fingerprint::fingerprint;
pub use fragments::{FragmentCounters, Fragments};
pub use headers::{Arp, Fragment, Headers, Ip, KeyFrom, Link, TunnelKind, Vlans};
pub use host::Host;
pub use key::{
    Addr, FlowKey, Mac, Orientation, Tuple, from_ip_addr, has_ports, hash_words, ip_addr, is_icmp, scramble,
};
pub use layers::{Layer, LayerFragment, layers};
pub use parse::parse;
pub use quoted::{Quoted, quote_of};
pub use spread::{Spreader, spread};
pub use subject::subject;
pub use walk::MAX_NESTING;
