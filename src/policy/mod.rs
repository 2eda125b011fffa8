//! What the rules ought to be, and who says so.
//!
//! [`learning`] makes policies of flow records.

pub mod learning;
