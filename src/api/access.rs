//! Who may do what: the one table. What is not in it is done for nobody.

use super::Role;
use super::endpoint::Method;

/// The least that is asked of whoever wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Least {
    /// Nothing: it tells what everybody may know.
    Anyone,
    Role(Role),
    /// The table does not have it.
    Nobody,
}

use Least::{Anyone, Role as R};
use Method::{Delete, Get, Post, Put};
use Role::{Admin, Operator, Viewer};

const TABLE: &[(Method, &str, Least)] = &[
    (Get, "/openapi.json", Anyone),
    (Get, "/docs", Anyone),
];

/// What an endpoint asks.
pub(super) fn least(method: Method, path: &str) -> Least {
    let entry = TABLE.iter().find(|(known, its, _)| (*known, *its) == (method, path));
    entry.map_or(Least::Nobody, |(.., least)| *least)
}
