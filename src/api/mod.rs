//! HTTP for policy.

mod access;
mod call;
mod cursor;
mod document;
mod endpoint;
mod gate;
mod limit;
mod problem;
mod resources;
mod role;
mod router;
mod secret;
mod server;
mod tls;
mod world;

pub use call::percent_encoded;
pub use gate::Who;
pub use problem::{Fault, Problem};
pub use role::Role;
pub use secret::{new_token, token_digest};
pub use server::{ApiError, ApiServer};
pub use tls::TlsError;
