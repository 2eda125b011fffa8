//! What the API is: its document, and a page that shows it without any network.

use axum::http::header::CONTENT_SECURITY_POLICY;

use crate::api::call::{Answer, Call};
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;

const PAGE: &str = include_str!("docs.html");
/// The page loads nothing but the document, and nobody may frame it.
const ALLOWED: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/openapi.json", "document", document)
            .summary("description", "This description, as OpenAPI 3.1")
            .gives_other("application/json"),
        Endpoint::new(Method::Get, "/docs", "docs", page)
            .summary("description", "This description, as a page")
            .gives_other("text/html"),
    ]
}

fn document(world: &World, _: &Call) -> Result<Answer, Problem> {
    Answer::json(&world.document)
}

fn page(_: &World, _: &Call) -> Result<Answer, Problem> {
    Ok(Answer::of("text/html; charset=utf-8", PAGE).with(CONTENT_SECURITY_POLICY, ALLOWED))
}
