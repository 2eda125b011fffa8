//! Flow table, state, time-outs → [`FlowRecord`].
mod record;

pub use record::{EndReason, FlowRecord, FlowState, TO_CLIENT, TO_SERVER};
