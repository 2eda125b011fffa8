//! Files → what the scorer looks at.
//!
//! In: flow records as lines of JSON, gnomon's own or Suricata's, perhaps compressed ([`FlowFile`]); tables as CSV or
//! parquet ([`Table`]). Out: [`FlowRecord`](crate::flow::FlowRecord)s, columns. Runs where the command line runs. What
//! cannot be read is said with file and line.

mod flows;
mod table;

pub use flows::{EventLines, FlowFile, open};
pub use table::{Column, Table};
