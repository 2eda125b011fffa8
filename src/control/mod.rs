//! The running appliance answers questions: a Unix socket, its server, its client.
//!
//! - **In**: one request a line, a JSON object with a `verb`.
//! - **Out**: the lines of the answer, JSON objects, ended by `{"end":true,…}` or `{"error":{…}}`; between them perhaps
//!   `{"binary":N}` followed by N bytes. The first line of a connection says who answers: `{"gnomon":…,"protocol":1,…}`.
//! - **Runs on**: threads of its own, one for the socket and one for each client, never on a worker.
//! - **When full**: more clients than [`MOST_CLIENTS`] are turned away with a reason. A client that does not read keeps
//!   nobody waiting but its own thread, and is cut off after [`PATIENCE`]. What a client started ends with it.
//!
//! A verb is one entry in [`verbs::VERBS`] and a function with a [`Request`], the [`Live`] appliance and a [`Reply`].
mod client;
mod flows;
mod live;
mod mirrors;
mod models;
mod place;
mod protocol;
mod reply;
mod server;
mod socket;
mod stats;
#[cfg(test)]
mod tests;
pub mod verbs;
mod watch;

use std::time::Duration;

pub use client::{Answer, Client, ClientError, Part};
pub use flows::{FlowsArguments, Key, MOST_SORTED, SortKey};
pub use live::{Live, PortView};
pub use place::{Place, candidates};
pub use protocol::{Failure, Hello, PROTOCOL, Refusal, Request};
pub use reply::Reply;
pub use server::Server;
pub use socket::Listening;
pub use verbs::Verb;

/// Clients at one time.
pub const MOST_CLIENTS: usize = 32;
/// How long a client may leave an answer unread.
pub const PATIENCE: Duration = Duration::from_secs(10);
