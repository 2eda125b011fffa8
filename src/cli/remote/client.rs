//! HTTP, blocking.

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, http};

use super::{Access, token_file};
use crate::api::percent_encoded as encoded;

const USUAL_URL: &str = "http://127.0.0.1:8443";
/// Certificates of authorities that Debian, Red Hat and others keep.
const BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A little longer than the server gives itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(75);
const LARGEST: u64 = 1 << 30;

/// A connection to the API.
#[derive(Debug)]
pub(in crate::cli) struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
}

/// An answer that is not a problem.
#[derive(Debug)]
pub(in crate::cli) struct Reply {
    /// With its quotes.
    pub(in crate::cli) etag: Option<String>,
    pub(in crate::cli) body: Value,
}

/// A problem that the API told.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
pub(in crate::cli) struct Refused {
    told: String,
}

impl Client {
    pub(in crate::cli) fn new(access: &Access) -> Result<Self> {
        let url = access.url.clone().or_else(|| variable("GNOMON_URL")).unwrap_or_else(|| USUAL_URL.to_owned());
        let url = url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!("`{url}` is not the URL of an API, such as https://gnomon.example:8443");
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("gnomon/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_recv_response(Some(ANSWER_WITHIN));
        if url.starts_with("https://") {
            config = config.tls_config(tls(access)?);
        }
        Ok(Self { agent: config.build().new_agent(), url, token: token(access)? })
    }

    pub(in crate::cli) fn get(&self, path: &str) -> Result<Reply> {
        self.ask("GET", path, None, None)
    }

    pub(in crate::cli) fn post(&self, path: &str, body: Option<&Value>) -> Result<Reply> {
        self.ask("POST", path, None, body)
    }

    /// An answer that is not JSON.
    pub(in crate::cli) fn text(&self, path: &str) -> Result<String> {
        let mut response = self.send("GET", path, None, None)?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(LARGEST).read_to_string()?;
        match status {
            200..=299 => Ok(text),
            _ => Err(refused(status, &serde_json::from_str(&text).unwrap_or_default(), self.token.is_some()).into()),
        }
    }

    /// All items of a list, in as many requests as it takes.
    pub(in crate::cli) fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut place = format!("{path}{joint}limit=1000");
        loop {
            let mut body = self.get(&place)?.body;
            if let Value::Array(more) = body["items"].take() {
                items.extend(more);
            }
            match body["next"].as_str() {
                Some(next) => place = format!("{path}{joint}limit=1000&after={}", encoded(next)),
                None => return Ok(items),
            }
        }
    }

    /// The first items of a list; 0: all.
    pub(in crate::cli) fn first(&self, path: &str, limit: usize) -> Result<Vec<Value>> {
        match limit {
            1..=1000 => {
                let mut body = self.get(&format!("{path}?limit={limit}"))?.body;
                Ok(body["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
            }
            limit => {
                let mut items = self.list(path)?;
                items.truncate(if limit == 0 { usize::MAX } else { limit });
                Ok(items)
            }
        }
    }

    /// `path`: after `/api/v1`, with the query.
    pub(in crate::cli) fn ask(
        &self,
        method: &str,
        path: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Reply> {
        let mut response = self.send(method, path, if_match, body)?;
        let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(LARGEST).read_to_string();
        let text = text.with_context(|| format!("reading the answer of {}", self.url))?;
        let value = match text.as_str() {
            "" => Value::Null,
            text => {
                serde_json::from_str(text).with_context(|| format!("{} does not answer as gnomon does", self.url))?
            }
        };
        match status {
            200..=299 => Ok(Reply { etag, body: value }),
            _ => Err(refused(status, &value, self.token.is_some()).into()),
        }
    }

    /// Events as they come, until `take` has enough or the server ends.
    pub(in crate::cli) fn follow(&self, path: &str, mut take: impl FnMut(&str, Value) -> Result<bool>) -> Result<()> {
        let mut response = self.send("GET", path, None, None)?;
        if response.status() != 200 {
            let text = response.body_mut().read_to_string()?;
            let problem = serde_json::from_str(&text).unwrap_or_default();
            return Err(refused(response.status().as_u16(), &problem, self.token.is_some()).into());
        }
        let mut kind = String::new();
        for line in BufReader::new(response.body_mut().as_reader()).lines() {
            let line = line?;
            if let Some(name) = line.strip_prefix("event: ") {
                kind = name.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ")
                && !take(&kind, serde_json::from_str(data)?)?
            {
                break;
            }
        }
        Ok(())
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Result<http::Response<ureq::Body>> {
        let mut request = http::Request::builder().method(method).uri(format!("{}/api/v1{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(etag) = if_match {
            request = request.header("if-match", etag);
        }
        let sent = match body {
            Some(value) => {
                let request = request.header("content-type", "application/json").body(value.to_string())?;
                self.agent.run(request)
            }
            None => self.agent.run(request.body(())?),
        };
        sent.map_err(|error| unreachable(&self.url, error))
    }
}

fn unreachable(url: &str, error: ureq::Error) -> anyhow::Error {
    match &error {
        ureq::Error::Io(io) if io.kind() == ErrorKind::ConnectionRefused => anyhow!(
            "nobody listens at {url}: is `gnomon serve`, or `gnomon run` with [api] listen, running there? \
             --url or GNOMON_URL says where else to ask"
        ),
        _ => anyhow!("{url}: {error}"),
    }
}

fn refused(status: u16, problem: &Value, has_token: bool) -> Refused {
    let mut told = problem["detail"].as_str().map_or_else(|| format!("refused with status {status}"), str::to_owned);
    let faults = problem["errors"].as_array().into_iter().flatten();
    let faults: Vec<String> = faults
        .filter_map(|fault| {
            let (pointer, detail) = (fault["pointer"].as_str()?, fault["detail"].as_str()?);
            // What stands in the text already is not said twice.
            (!told.contains(detail)).then(|| format!("\n  {}: {detail}", pointer.trim_start_matches('/')))
        })
        .collect();
    told.push_str(&faults.concat());
    if status == 401 && has_token {
        told.push_str("; the token is that of --token, $GNOMON_TOKEN or --token-file");
    }
    Refused { told }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What was given, in the environment, in a file; a usual file may be missing.
fn token(access: &Access) -> Result<Option<String>> {
    if let Some(token) = access.token.clone().or_else(|| variable("GNOMON_TOKEN")) {
        return Ok(Some(token));
    }
    let Some(path) = access.token_file.clone().or_else(token_file) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound && access.token_file.is_none() => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading the token in {}", path.display())),
    }
}

fn tls(access: &Access) -> Result<TlsConfig> {
    let given = access.ca.clone().or_else(|| variable("GNOMON_CA").map(PathBuf::from));
    let usual = || BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    let path = given.or_else(usual).context("no certificates of authorities: give those of the API with --ca FILE")?;
    let roots = Arc::new(certificates(&path)?);
    let builder = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::Specific(roots));
    let (Some(own), Some(key)) = (&access.cert, &access.key) else { return Ok(builder.build()) };
    let chain = certificates(own)?;
    let text = std::fs::read(key).with_context(|| format!("reading {}", key.display()))?;
    let key = PrivateKey::from_pem(&text).with_context(|| format!("{}: not a private key", key.display()))?;
    Ok(builder.client_cert(Some(ClientCert::new_with_certs(&chain, key))).build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.with_context(|| format!("{}: not PEM", path.display()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("{}: there is no certificate in it", path.display());
    }
    Ok(found)
}
