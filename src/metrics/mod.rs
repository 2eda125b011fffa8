//! Counters → the page that a Prometheus server reads.
//!
//! In: values, by names that stand in the [catalogue](CATALOGUE). Out: the text format 0.0.4 over HTTP, `GET /metrics`.
//! Runs on a thread of its own that sleeps between readers and looks at counters only when asked. No label has an
//! address: the number of series depends on the configuration alone. Readers beyond a few at once wait; one that sends
//! or takes nothing is cut off.
//!
//! The text comes from the crate `prometheus`, without its registry: the counters live in the workers, and plain
//! values are turned into its model when a reader asks. (`prometheus-client` writes OpenMetrics only, which `promtool
//! check metrics` refuses.) HTTP is `hyper` on a runtime of one thread.

mod catalogue;
mod exposition;
mod server;

pub use catalogue::{CATALOGUE, Kind, Metric};
pub use exposition::{CONTENT_TYPE, Exposition};
pub use server::MetricsServer;
