//! A policy service with its API, on a store of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gnomon::api::{ApiServer, Role, new_token, token_digest};
use gnomon::config::Api;
use gnomon::policy::service::{CompileOnly, Service};
use gnomon::rules::Decision;
use gnomon::store::{Store, StoredToken};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use ureq::{Agent, http};

pub struct Served {
    pub server: ApiServer,
    _folder: tempfile::TempDir,
    tokens: Vec<(Role, String)>,
    agent: Agent,
}

/// An answer; status 0 when there was none.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub text: String,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// A service on a new store in a folder.
pub fn service(folder: &Path) -> (Arc<Service>, PathBuf) {
    let path = folder.join("policy.db");
    let store = Arc::new(Store::open(&path).expect("a store"));
    let plane = CompileOnly::new(4096, Decision::Deny).expect("a plane");
    (Arc::new(Service::open(store, Box::new(plane), Vec::new, now).expect("a service")), path)
}

/// One for each role, with the role's name.
pub fn add_tokens(store: &Store) -> Vec<(Role, String)> {
    let token = |role: Role| {
        let text = new_token().expect("random numbers");
        let stored = StoredToken {
            name: role.name().to_owned(),
            role,
            digest: token_digest(&text),
            created: now(),
            expires: None,
            last_used: None,
        };
        store.add_token(&stored).expect("stored");
        (role, text)
    };
    Role::ALL.map(token).to_vec()
}

impl Served {
    pub fn start() -> Self {
        Self::with(&Api { rate: 100_000, ..Api::default() })
    }

    pub fn with(settings: &Api) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (service, path) = service(folder.path());
        let store = Store::open(&path).expect("a store");
        let tokens = add_tokens(&store);
        let address = "127.0.0.1:0".parse().expect("an address");
        let server = ApiServer::start(settings, address, store, service).expect("a server");
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30)));
        Self { server, _folder: folder, tokens, agent: config.build().new_agent() }
    }

    /// Of a role; `nobody` has none, and a stranger's is not known.
    pub fn token(&self, who: &str) -> Option<String> {
        match who {
            "nobody" => None,
            "stranger" => Some("gnm_stranger".to_owned()),
            role => self.tokens.iter().find(|(known, _)| known.name() == role).map(|(_, token)| token.clone()),
        }
    }

    pub fn get(&self, path: &str, token: Option<&str>) -> Got {
        self.ask("GET", path, token, &[], None)
    }

    pub fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Got {
        match body {
            Some(body) => {
                let headers = [headers, &[("content-type", "application/json")]].concat();
                self.send(method, path, token, &headers, body.to_string().as_bytes())
            }
            None => self.send(method, path, token, headers, &[]),
        }
    }

    pub fn send(&self, method: &str, path: &str, token: Option<&str>, headers: &[(&str, &str)], body: &[u8]) -> Got {
        let url = format!("http://{}/api/v1{path}", self.server.address());
        let mut request = http::Request::builder().method(method).uri(url);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = match body {
            [] => self.agent.run(request.body(()).expect("a request")),
            body => self.agent.run(request.body(body).expect("a request")),
        };
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return Got { status: 0, headers: Vec::new(), text: error.to_string() },
        };
        let headers: Vec<(String, String)> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect();
        let endless = headers.iter().any(|(_, value)| value == "text/event-stream");
        let text = if endless { String::new() } else { response.body_mut().read_to_string().expect("text") };
        Got { status: response.status().as_u16(), headers, text }
    }
}

/// Certificates in a folder.
pub struct Files {
    folder: PathBuf,
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// Certificate or key of a client.
    pub fn client(&self, name: &str, kind: &str) -> String {
        self.folder.join(format!("{name}.{kind}")).display().to_string()
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// An authority, a certificate for this machine, and clients: `ops` and `stranger` of the authority, `forged` of another.
pub fn certificates(folder: &Path) -> Files {
    let (ours, theirs) = (authority(), authority());
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let make = |name: &str, issuer: &CertifiedIssuer<'static, KeyPair>, hosts: Vec<String>| {
        let mut params = CertificateParams::new(hosts).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &**issuer).expect("signed");
        (write(&format!("{name}.pem"), certificate.pem()), write(&format!("{name}.key"), key.serialize_pem()))
    };
    let (certificate, key) = make("server", &ours, vec!["localhost".to_owned()]);
    make("ops", &ours, Vec::new());
    make("stranger", &ours, Vec::new());
    make("forged", &theirs, Vec::new());
    let authority = write("authority.pem", ours.pem());
    Files { folder: folder.to_owned(), authority, certificate, key }
}
