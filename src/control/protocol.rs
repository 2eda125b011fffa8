//! What goes over the socket.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::filter::FilterError;

/// Raised when old clients or servers would misunderstand each other.
pub const PROTOCOL: u32 = 1;
/// Longest request, in bytes.
pub(super) const LONGEST_REQUEST: u64 = 64 * 1024;

/// The first line of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the program.
    pub gnomon: String,
    pub protocol: u32,
    pub pid: u32,
}

impl Hello {
    pub(super) fn own() -> Self {
        Self { gnomon: env!("CARGO_PKG_VERSION").into(), protocol: PROTOCOL, pid: std::process::id() }
    }
}

/// One line from a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub verb: String,
    arguments: Map<String, Value>,
}

impl Request {
    /// # Errors
    /// Says what is wrong with the line.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let wrong = |message: String| Refusal::new("bad_request", message);
        let read = serde_json::from_slice::<Map<String, Value>>(line);
        let mut arguments = read.map_err(|error| {
            wrong(format!("a request is a JSON object on one line, such as {{\"verb\":\"ping\"}}: {error}"))
        })?;
        match arguments.remove("protocol") {
            None => {}
            Some(Value::Number(n)) if n.as_u64() == Some(PROTOCOL.into()) => {}
            Some(other) => {
                let message = format!("this gnomon speaks protocol {PROTOCOL}, the request is of {other}");
                return Err(Refusal::new("protocol", message));
            }
        }
        match arguments.remove("verb") {
            Some(Value::String(verb)) => Ok(Self { verb, arguments }),
            _ => Err(wrong("the request has no \"verb\"".into())),
        }
    }

    /// The arguments as a type of the verb, which should refuse keys it does not know.
    ///
    /// # Errors
    /// Says which argument is wrong.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_value(Value::Object(self.arguments.clone()))
            .map_err(|error| Refusal::new("bad_request", format!("`{}`: {error}", self.verb)))
    }
}

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One word for programs: `bad_request`, `unknown_verb`, `filter`, `busy`, `protocol`, `taps`, `failed`,
    /// `stopping`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Refusal {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

impl From<Box<FilterError>> for Refusal {
    fn from(error: Box<FilterError>) -> Self {
        Refusal::new("filter", error.to_string())
    }
}

/// Why an answer was not completed.
#[derive(Debug)]
pub enum Failure {
    /// The client shall know.
    Refused(Refusal),
    /// Nobody is left to tell.
    Gone(io::Error),
}

impl<R: Into<Refusal>> From<R> for Failure {
    fn from(refusal: R) -> Self {
        Failure::Refused(refusal.into())
    }
}
