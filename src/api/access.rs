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
    (Get, "/events", R(Viewer)),
    (Get, "/vms", R(Viewer)),
    (Post, "/vms", R(Operator)),
    (Get, "/vms/{name}", R(Viewer)),
    (Put, "/vms/{name}", R(Operator)),
    (Delete, "/vms/{name}", R(Operator)),
    (Get, "/groups", R(Viewer)),
    (Post, "/groups", R(Operator)),
    (Get, "/groups/{name}", R(Viewer)),
    (Put, "/groups/{name}", R(Operator)),
    (Delete, "/groups/{name}", R(Operator)),
    (Get, "/relationships", R(Viewer)),
    (Post, "/relationships", R(Operator)),
    (Get, "/relationships/{name}", R(Viewer)),
    (Put, "/relationships/{name}", R(Operator)),
    (Delete, "/relationships/{name}", R(Operator)),
    (Get, "/learned", R(Viewer)),
    (Post, "/learned", R(Operator)),
    (Get, "/learned/{name}", R(Viewer)),
    (Put, "/learned/{name}", R(Operator)),
    (Delete, "/learned/{name}", R(Operator)),
    (Get, "/profiles", R(Viewer)),
    (Post, "/profiles", R(Operator)),
    (Get, "/profiles/{name}", R(Viewer)),
    (Put, "/profiles/{name}", R(Operator)),
    (Delete, "/profiles/{name}", R(Operator)),
    (Get, "/profiles/{name}/preview", R(Viewer)),
    (Get, "/overrides", R(Viewer)),
    (Post, "/overrides", R(Operator)),
    (Get, "/overrides/{name}", R(Viewer)),
    (Put, "/overrides/{name}", R(Operator)),
    (Delete, "/overrides/{name}", R(Operator)),
    (Get, "/tags", R(Viewer)),
    (Get, "/tags/{name}", R(Viewer)),
    (Post, "/tags/{name}", R(Operator)),
    (Get, "/rules", R(Viewer)),
    (Get, "/rules/{name}", R(Viewer)),
    (Get, "/learning", R(Viewer)),
    (Get, "/learning/{name}/graph", R(Viewer)),
    (Post, "/learning/{name}/start", R(Admin)),
    // What was learnt is enforced then.
    (Post, "/learning/{name}/stop", R(Admin)),
    (Get, "/inbox", R(Viewer)),
    (Get, "/inbox/{name}", R(Viewer)),
    (Post, "/inbox/answers", R(Operator)),
    (Get, "/suggestions", R(Viewer)),
    (Get, "/suggestions/{name}", R(Viewer)),
    (Post, "/suggestions/{name}/answer", R(Admin)),
    (Get, "/feedback", R(Viewer)),
    (Get, "/policy", R(Viewer)),
    (Get, "/policy/history", R(Viewer)),
    (Get, "/policy/export", R(Viewer)),
    (Get, "/policy/draft", R(Viewer)),
    (Delete, "/policy/draft", R(Operator)),
    (Get, "/policy/diff", R(Viewer)),
    (Post, "/policy/validate", R(Operator)),
    (Post, "/policy/apply", R(Operator)),
    (Post, "/policy/commit", R(Admin)),
    (Post, "/policy/confirm", R(Admin)),
    (Post, "/policy/rollback", R(Admin)),
    (Get, "/audit", R(Viewer)),
    (Get, "/audit/verify", R(Viewer)),
];

/// What an endpoint asks.
pub(super) fn least(method: Method, path: &str) -> Least {
    let entry = TABLE.iter().find(|(known, its, _)| (*known, *its) == (method, path));
    entry.map_or(Least::Nobody, |(.., least)| *least)
}
