//! Rule set → compile → immutable structure; `Subject` → `Verdict`; publish.
//!
//! * In: a [`Policy`] (groups, rules, mirror matches) from the control thread; a [`Subject`] per flow miss
//!   from a worker.
//! * Out: a [`Verdict`] by value. Rule ids and group names leave only as numbers; exporters turn them back
//!   into text with [`Labels`].
//! * Cores: [`Compiled::build`], [`Publisher`] and [`explain()`] run on the control thread;
//!   [`Compiled::classify`] and [`Reader::refresh`] on every worker, without allocation, lock or wait.
//! * When full: nothing is queued here. A policy that exceeds a limit (distinct rule ids, mirror sessions,
//!   group sets) does not compile, and the generation in force stays in force.
//!
//! ```text
//! Policy ──build──► Compiled (generation n) ──publish──► Reader (one per worker) ──classify──► Verdict
//!            │                                                                        │
//!            └──────────────► Labels (append-only, all generations) ◄────lookup──── exporters
//! ```
mod analysis;
mod checks;
mod compile;
mod compiled;
mod explain;
mod group_sets;
mod keyspace;
mod labels;
pub mod oracle;
mod publish;
mod rule;
mod subject_text;
mod sync;
mod tables;

pub use analysis::{Breadth, Finding, FindingKind, ReportOptions, RuleReport, RuleUse, Unchecked, Witness, analyse};
pub use checks::CompileError;
pub use compile::{Compiler, DEFAULT_MEMORY, RuleChange};
pub use compiled::Compiled;
pub use explain::{
    EndpointStep, Explanation, Membership, MirrorSelected, Outcome, Replies, RuleStep, explain, reply_to,
};
pub use labels::Labels;
pub use publish::{Generational, Publisher, Reader, StaleGeneration};
pub use rule::{
    Action, Decision, Group, GroupIx, GroupSetHandle, LiveFlows, MAX_MIRRORS, Match, MirrorMatch, Mode, Policy, Rule,
    RuleHandle, Selector, Shadows, Standing, Subject, Tier, Verdict,
};
pub use subject_text::{parse_flow, parse_protocol, protocol_name};
