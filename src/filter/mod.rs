//! Expressions over named, typed fields: which flows to list, which packets to trace or capture.
//!
//! - **In**: text such as `proto=tcp dest_port=443,8443 src_ip=10.0.0.0/8 bytes>1M not rule=default`, and the
//!   [`Schema`] that says which fields there are.
//! - **Out**: an [`Expression`] that anything with [`Fields`] is tested against; or a [`FilterError`] that points at the
//!   place and says what is allowed.
//! - **Runs on**: parsing wherever people type; [`Expression::matches`] also on workers: it neither allocates nor
//!   locks. Workers know rules, groups and mirror sessions by number only, so an expression on its way there
//!   is [bound](Expression::bind) to the numbers behind the names first.
//!
//! What something does not know about itself is [`Value::Unknown`], and a test on it decides nothing:
//! [`Expression::may_match`] is then still true. A worker thus weeds out what it can, and who knows the rest
//! decides.
//!
//! ```text
//!   text ─ lexer ─► tokens ─ parser ─► nodes ─ literal ─► checks on ranges, bits, patterns
//! ```
mod check;
mod error;
mod expression;
mod field;
mod help;
mod json;
mod lexer;
mod literal;
mod parser;
mod record;
#[cfg(test)]
mod tests;

pub use error::FilterError;
pub use expression::{Expression, Vocabulary};
pub use field::{Field, Fields, Kind, Schema, Value};
pub use json::JsonLine;
pub use literal::instant;
pub use record::{LiveFlow, Scored};
