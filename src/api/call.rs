//! A request that was let in, and its answer.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION};
use axum::http::{Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::gate::Who;
use super::problem::Problem;

/// A request, checked against its endpoint's description.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) who: Who,
    pub(super) path: Vec<(String, String)>,
    pub(super) query: BTreeMap<&'static str, String>,
    /// `If-Match`, as it was given.
    pub(super) if_match: Option<String>,
    /// Valid by the endpoint's schema; null without a body.
    pub(super) body: Value,
}

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Kind,
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Flag,
    Number { from: u64, to: u64 },
    Words(&'static [&'static str]),
    Text,
}

impl Parameter {
    pub(super) const fn flag(name: &'static str, about: &'static str) -> Self {
        Self { name, about, kind: Kind::Flag }
    }

    pub(super) const fn number(name: &'static str, from: u64, to: u64, about: &'static str) -> Self {
        Self { name, about, kind: Kind::Number { from, to } }
    }

    pub(super) const fn words(name: &'static str, words: &'static [&'static str], about: &'static str) -> Self {
        Self { name, about, kind: Kind::Words(words) }
    }

    pub(super) const fn text(name: &'static str, about: &'static str) -> Self {
        Self { name, about, kind: Kind::Text }
    }

    /// Whether it takes a value; if not, what it does take.
    fn check(&self, value: &str) -> Result<(), String> {
        let good = match self.kind {
            Kind::Flag => matches!(value, "true" | "false"),
            Kind::Number { from, to } => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                digits && value.parse().is_ok_and(|number: u64| (from..=to).contains(&number))
            }
            Kind::Words(words) => words.contains(&value),
            Kind::Text => !value.is_empty() && value.len() <= 1024 && !value.contains('\0'),
        };
        let allowed = || match self.kind {
            Kind::Flag => "true or false".to_owned(),
            Kind::Number { from, to } => format!("a number from {from} to {to}"),
            Kind::Words(words) => words.join(" or "),
            Kind::Text => "1 to 1024 characters".to_owned(),
        };
        if good { Ok(()) } else { Err(format!("`{}={value}`: {} takes {}", self.name, self.name, allowed())) }
    }
}

/// The query of a request: only parameters that the endpoint has, each once, with values that they take.
pub(super) fn read_query(
    text: &str,
    parameters: &[&'static Parameter],
) -> Result<BTreeMap<&'static str, String>, Problem> {
    let mut query = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let [name, value] = [name, value].map(decoded);
        let (Some(name), Some(value)) = (name, value) else {
            return Err(Problem::bad_request("the query is not percent-encoded UTF-8"));
        };
        let Some(parameter) = parameters.iter().find(|parameter| parameter.name == name) else {
            let known: Vec<&str> = parameters.iter().map(|parameter| parameter.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Problem::bad_request(format!("there is no parameter `{name}`; there is: {known}")));
        };
        parameter.check(&value).map_err(Problem::bad_request)?;
        if query.insert(parameter.name, value).is_some() {
            return Err(Problem::bad_request(format!("`{name}` is given twice")));
        }
    }
    Ok(query)
}

/// A part of a path or query as URLs have it.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// As HTML forms write it: `+` for a space, `%` and two hexadecimal digits for a byte.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let digit = |digit: u8| char::from(digit).to_digit(16);
                (digit(digits[0])? << 4 | digit(digits[1])?) as u8
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

impl Call {
    /// A part of the path, by the name that the endpoint gives it.
    pub(super) fn part(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(super) fn text(&self, parameter: &Parameter) -> Option<&str> {
        self.query.get(parameter.name).map(String::as_str)
    }

    pub(super) fn flag(&self, parameter: &Parameter) -> bool {
        self.text(parameter) == Some("true")
    }

    pub(super) fn number(&self, parameter: &Parameter) -> Option<u64> {
        self.text(parameter).and_then(|text| text.parse().ok())
    }

    /// The body as what it is.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        T::deserialize(&self.body).map_err(|error| Problem::new(422, "invalid", error.to_string()))
    }
}

/// What is sent back.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: Body,
    headers: Vec<(HeaderName, String)>,
}

impl Answer {
    pub(super) fn of(kind: &'static str, body: impl Into<Body>) -> Self {
        Self { status: StatusCode::OK, kind, body: body.into(), headers: Vec::new() }
    }

    pub(super) fn json(value: &impl Serialize) -> Result<Self, Problem> {
        let bytes = serde_json::to_vec(value).map_err(|error| {
            log::error!("an answer of the API is not JSON: {error}");
            Problem::internal()
        })?;
        Ok(Self::of("application/json", bytes))
    }

    /// What was made is at a place.
    #[must_use]
    pub(super) fn created(mut self, place: &str) -> Self {
        self.status = StatusCode::CREATED;
        self.headers.push((LOCATION, place.to_owned()));
        self
    }

    /// `etag`: without quotes.
    #[must_use]
    pub(super) fn tagged(mut self, etag: &str) -> Self {
        self.headers.push((ETAG, format!("\"{etag}\"")));
        self
    }

    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIMIT: Parameter = Parameter::number("limit", 1, 1000, "");
    const DRY: Parameter = Parameter::flag("dry_run", "");
    const WHY: Parameter = Parameter::text("why", "");

    fn read(text: &str) -> Result<BTreeMap<&'static str, String>, String> {
        read_query(text, &[&LIMIT, &DRY, &WHY]).map_err(|problem| problem.detail)
    }

    #[test]
    fn queries_are_what_the_description_says() {
        let good = read("limit=10&dry_run=true&why=a+b%20%C3%A4&").unwrap();
        assert_eq!(good, [("dry_run", "true"), ("limit", "10"), ("why", "a b ä")].map(|(k, v)| (k, v.into())).into());
        for (text, says) in [
            ("limit=0", "1 to 1000"),
            ("limit=%2B5", "1 to 1000"),
            ("limit=1&limit=2", "given twice"),
            ("dry_run=yes", "true or false"),
            ("dry_run", "true or false"),
            ("lmit=1", "there is: limit, dry_run, why"),
            ("why=%ff", "percent-encoded"),
            ("why=%f", "percent-encoded"),
            ("why=%00", "1024"),
        ] {
            assert!(read(text).is_err_and(|error| error.contains(says)), "{text}: {:?}", read(text));
        }
    }
}
