//! Flow records → what the VMs of a group talk to → rules that allow just that, for them or for another group.
//!
//! In: connections as [`Seen`] in flow records, with the groups of both ends. Out: a [`Graph`] of each group, which is
//! one consolidated policy for all its VMs; rules of it ([`rules`](mod@rules)); the part of it that a mirroring
//! [`Profile`] gives to another group; and as [`Unseen`] what nobody has seen before. Pure: no thread, clock or file;
//! the same records in any order give the same graph. Connections beyond a limit are not learnt, and counted.
//!
//! ```text
//! flow records ─► seen ─► learner ─► graph ─┬► rules, tier `learned`
//!                                           ├► profile: a share of them for another group
//!                                           └► unseen: what it does not cover
//! ```

mod connection;
mod fold;
mod graph;
mod learner;
mod profile;
pub mod rules;
mod seen;
mod unseen;

pub use connection::{Connection, Endpoint, Service, fingerprint};
pub use graph::{Edge, Graph, LeftOut};
pub use learner::{Learner, Settings};
pub use profile::{Mirrored, Plan, Profile};
pub use seen::{Answer, Place, Seen};
pub use unseen::{Item, Unseen};
