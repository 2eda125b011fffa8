//! What the rules ought to be, and who says so.
//!
//! [`learning`] makes policies of flow records. [`suggest`] proposes changes of the rules that stand, and learns from
//! the answers.

pub mod learning;
pub mod suggest;
