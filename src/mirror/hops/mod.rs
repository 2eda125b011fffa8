//! The way to each collector: who is the next hop, and whether the collector is well.
//!
//! - **In**: the [`Route`]s of the targets; frames received on mirror ports.
//! - **Out**: a [`Hop`] for each route, one word that workers read once a burst; requests, probes and answers to send.
//! - **Runs on**: a control thread ([`Watch`], [`answer`]). Workers never wait for an address.
//! - **When full**: nothing is held here. Until its next hop is known, copies to a collector are dropped and counted.
//!
//! ```text
//!             asked 1 s, 1 s, 1 s, 2 s … 32 s apart          answered
//!   unknown ────────────────────────────────────────────────────────────► known ──┐ after `refresh`: asked again, him
//!      ▲                                                                    │ ▲    │ alone, then everybody twice
//!      └───────────────────────── three questions without answer ──────────┘ └────┘
//! ```
//! As RFC 826 and RFC 4861 have it, but for timers: there is one neighbour for each route, asked whether there is traffic
//! or not. What an owner of the address says unasked (gratuitous ARP, unsolicited advertisement) counts as an answer.
mod hop;
mod watch;
mod wire;

pub(crate) use hop::state_of;
pub use hop::{Health, Hop, HopState, Hops, Probe, Route};
pub use watch::Watch;
pub use wire::{Heard, answer};
