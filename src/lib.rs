//! gnomon: a poll-mode packet appliance in front of groups of virtual machines.
#![doc = "The way of a packet, and with it the list of folders:"]
//! ```text
//!            RX queue (one lcore owns it)
//!               │ burst ≤ 32
//!   packet ─────┤ headers → FlowKey (both directions map to one flow), tunnels, fragments
//!   flow   ─────┤ table lookup; hit with current generation → cached verdict
//!   rules  ─────┤ miss or stale → endpoints → groups → trie → verdict
//!   mirror ─────┤ BEFORE any change to the packet: refcounted clone → dedicated mirror TX queue
//!   worker ─────┤ forward to the paired port, deny, reject
//!   flow   ─────┘ flow records (bounded ring, full = drop + count) ──► behaviour: score, flags
//!                                                                      ├─► export: files
//!   api ◄──► policy: book, learning, inbox, suggestions ◄────────────────────┘
//!               │ compile aside, store, publish a generation
//!               └──► rules
//! ```
//!
//! There is one way back into the data path: a new generation is published.

pub mod packet;
pub mod trie;
pub mod rules;
pub mod flow;
pub mod mirror;
pub mod worker;
pub mod behaviour;
pub mod export;
pub mod filter;
pub mod metrics;
pub mod policy;

pub mod api;
pub mod appliance;
pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod dpdk;
pub mod ingest;
pub mod scenario;
pub mod store;
pub mod taps;
