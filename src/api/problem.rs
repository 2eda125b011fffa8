//! Errors as RFC 9457 has them: `application/problem+json`.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind it is, and `code` says it more closely.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status of the response.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// One word for programs; does not change.
    pub code: &'static str,
    /// What is wrong and what can be done about it, for people.
    pub detail: String,
    /// Where in the body it is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<Fault>,
    /// What goes with the status. One suffices, and problems are kept small.
    #[serde(skip)]
    header: Option<Box<(HeaderName, String)>>,
}

/// One thing that is wrong with the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the body; empty for the whole.
    pub pointer: String,
    pub detail: String,
}

impl Problem {
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Self {
            kind: "about:blank",
            title: known.unwrap_or("Error"),
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            header: None,
        }
    }

    /// A request that nobody could understand.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, "bad_request", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not_found", detail)
    }

    /// Nothing is said about why: that is in the log.
    pub fn internal() -> Self {
        Self::new(500, "internal", "gnomon could not do this; its log says why")
    }

    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", detail).with(WWW_AUTHENTICATE, "Bearer realm=\"gnomon\"")
    }

    pub(super) fn not_allowed(method: &str, allowed: &str) -> Self {
        let detail = format!("{method} is not possible here; {allowed} is");
        Self::new(405, "method_not_allowed", detail).with(ALLOW, allowed)
    }

    pub(super) fn too_many(seconds: u64) -> Self {
        let detail = format!("more requests than [api] rate allows; try again in {seconds} s");
        Self::new(429, "too_many_requests", detail).with(RETRY_AFTER, &seconds.to_string())
    }

    /// The same with places in the body.
    #[must_use]
    pub fn at(mut self, errors: Vec<Fault>) -> Self {
        self.errors = errors;
        self
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.header = Some(Box::new((name, value.to_owned())));
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        // Strings and numbers are always JSON.
        let mut response = Response::new(Body::from(serde_json::to_vec(&self).unwrap_or_default()));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some((name, value)) = self.header.map(|header| *header)
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            headers.insert(name, value);
        }
        response
    }
}
