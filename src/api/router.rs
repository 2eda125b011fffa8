//! From a request to its endpoint and back: who asks, how often, with what; then the endpoint's function, on a thread that
//! may block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, IF_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::access::Least;
use super::call::{Answer, Call, read_query};
use super::endpoint::{BASE, Endpoint, Method};
use super::gate::{Peer, Who};
use super::problem::{Fault, Problem};
use super::world::World;

/// Bytes of a body.
const LARGEST: usize = 16 << 20;
/// A body has come, or will not.
const BODY_WITHIN: Duration = Duration::from_secs(15);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Faults that are told of a body.
const TOLD: usize = 20;

/// Answers everything.
pub(super) fn router(world: &Arc<World>, endpoints: Vec<Endpoint>) -> Router {
    let mut paths: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        paths.entry(endpoint.full_path()).or_default().push(endpoint);
    }
    let mut router = Router::new();
    for (path, endpoints) in paths {
        router = router.route(&path, methods(world, endpoints));
    }
    router.fallback(async |request: Request| {
        let detail = format!("there is nothing at {}; {BASE}/docs shows what there is", request.uri().path());
        finished(Problem::not_found(detail).into_response())
    })
}

fn methods(world: &Arc<World>, endpoints: Vec<Endpoint>) -> MethodRouter {
    let mut names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.method.name()).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    let allowed = names.join(", ");
    let mut methods = MethodRouter::new();
    for endpoint in endpoints {
        let filter = match endpoint.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        };
        let (world, endpoint) = (world.clone(), Arc::new(endpoint));
        let serve = move |request: Request| {
            let (world, endpoint) = (world.clone(), endpoint.clone());
            async move {
                let answer = serve(world, endpoint, request).await;
                finished(answer.map_or_else(Problem::into_response, Answer::into_response))
            }
        };
        methods = methods.merge(on(filter, serve));
    }
    methods.fallback(move |request: Request| {
        let problem = Problem::not_allowed(request.method().as_str(), &allowed);
        std::future::ready(finished(problem.into_response()))
    })
}

/// Nothing of an answer is kept, guessed or told others.
fn finished(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    }
    response
}

async fn serve(world: Arc<World>, endpoint: Arc<Endpoint>, request: Request) -> Result<Answer, Problem> {
    let (mut parts, body) = request.into_parts();
    let who = admit(&world, &endpoint, &parts).await?;
    let path = path_of(&mut parts).await?;
    let query = read_query(parts.uri.query().unwrap_or_default(), &endpoint.query)?;
    let if_match = match parts.headers.get(IF_MATCH) {
        Some(value) => {
            let text = value.to_str().map_err(|_| Problem::bad_request("`If-Match` is not ASCII"))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    let body = match endpoint.body {
        Some(_) => read_body(&world, &endpoint, &parts.headers, body).await?,
        None => Value::Null,
    };
    let call = Call { who, path, query, if_match, body };
    on_a_thread(ANSWER_WITHIN, move || (endpoint.run)(&world, &call)).await
}

/// Who asks, if that one may.
async fn admit(world: &Arc<World>, endpoint: &Endpoint, parts: &Parts) -> Result<Who, Problem> {
    let Some(peer) = parts.extensions.get::<Peer>().cloned() else { return Err(Problem::internal()) };
    let least = endpoint.least;
    let (headers, world) = (parts.headers.clone(), world.clone());
    // An unknown token is looked for in the store.
    let admitted = on_a_thread(ANSWER_WITHIN, move || match least {
        Least::Anyone => world.gate.admit_anyone(&peer),
        _ => world.gate.admit(&peer, &headers),
    });
    let who = admitted.await?;
    match endpoint.least {
        Least::Anyone => Ok(who),
        Least::Role(role) if who.role >= role => Ok(who),
        Least::Role(role) => {
            let detail = format!("`{}` is {}, and this needs {}", who.name, who.role.name(), role.name());
            Err(Problem::new(403, "forbidden", detail))
        }
        Least::Nobody => Err(Problem::new(403, "forbidden", "nobody may do this")),
    }
}

async fn path_of(parts: &mut Parts) -> Result<Vec<(String, String)>, Problem> {
    let found: Result<RawPathParams, RawPathParamsRejection> = RawPathParams::from_request_parts(parts, &()).await;
    let found = found.map_err(|_| Problem::bad_request("the path is not percent-encoded UTF-8"))?;
    found
        .iter()
        .map(|(name, value)| match value {
            "" => Err(Problem::not_found("a part of the path is empty")),
            long if long.len() > 256 => Err(Problem::not_found("there is nothing with so long a name")),
            value => Ok((name.to_owned(), value.to_owned())),
        })
        .collect()
}

async fn read_body(world: &World, endpoint: &Endpoint, headers: &HeaderMap, body: Body) -> Result<Value, Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let detail = "the body must be JSON, with `Content-Type: application/json`";
        return Err(Problem::new(415, "unsupported_media_type", detail));
    }
    let too_large = || Problem::new(413, "too_large", format!("the body has more than {LARGEST} bytes"));
    if hyper::body::Body::size_hint(&body).lower() > LARGEST as u64 {
        // Nobody has to send it first.
        return Err(too_large());
    }
    let read = tokio::time::timeout(BODY_WITHIN, Limited::new(body, LARGEST).collect()).await;
    let read = read.map_err(|_| Problem::new(408, "timeout", "the body did not come in time"))?;
    let bytes = read.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => too_large(),
        None => Problem::bad_request("the body breaks off"),
    })?;
    let value: Value = serde_json::from_slice(&bytes.to_bytes())
        .map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))?;
    let Some(validator) = world.validator(endpoint) else { return Ok(value) };
    let fault = |error: jsonschema::ValidationError<'_>| Fault {
        pointer: error.instance_path().to_string(),
        detail: shortened(error.to_string()),
    };
    let faults: Vec<Fault> = validator.iter_errors(&value).take(TOLD).map(fault).collect();
    if faults.is_empty() {
        return Ok(value);
    }
    let detail = faults.iter().map(|fault| fault.detail.as_str()).collect::<Vec<_>>().join("; ");
    Err(Problem::new(422, "invalid", detail).at(faults))
}

/// A whole body may be in it.
fn shortened(mut text: String) -> String {
    const MOST: usize = 300;
    if let Some((cut, _)) = text.char_indices().nth(MOST) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// Functions of endpoints wait for the store and for one another.
async fn on_a_thread<T: Send + 'static>(
    within: Duration,
    run: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::time::timeout(within, tokio::task::spawn_blocking(run)).await {
        Ok(Ok(done)) => done,
        // It panicked, and the panic is in the log.
        Ok(Err(_)) => Err(Problem::internal()),
        Err(_) => {
            let detail = "this takes longer than a request may; what was asked for may still be done";
            Err(Problem::new(503, "busy", detail))
        }
    }
}
