//! What the rules ought to be, and who says so.
//!
//! ```text
//! flow records ─► learning ─► graphs, rules, profiles, what is unseen
//!                               │
//! people ─────────────────────► book: VMs, groups, relationships, … ─► rules::Policy
//! ```
//! [`learning`] makes policies of flow records. The [`book`] has what people and learning want, whole and without
//! contradiction, and says which rules that is.
//! [`suggest`] proposes changes of the rules that stand, and learns from the answers. The [`service`] keeps it all, changes
//! it whole, and says who did.

pub mod book;
mod instant;
pub mod learning;
pub mod service;
pub mod suggest;
