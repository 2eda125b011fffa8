//! Who asks, and whether they may.
//!
//! In: the peer of a connection with its client certificate, and a request's `Authorization`. Out: a name and a role, or
//! a [`Problem`]. Tokens are read from the store once a second, and at once when one is not known, so that a new token
//! works immediately and a revoked one for a second at most; the store is never asked while requests go well.
//!
//! While there is no token in the store, a client on the same machine may read without one. A local address says nothing
//! about the user, so that it never gives more than that; and a request that came by another host's name is somebody's web
//! page (DNS rebinding) and gets nothing.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST};

use super::limit::{Counted, Limiter};
use super::problem::Problem;
use super::{Role, token_digest};
use crate::appliance::unix_nanoseconds as now;
use crate::config::ApiClient;
use crate::store::{Store, StoreError, StoredToken};

/// Unknown tokens make the gate look at the store this often at most.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often it is written down when tokens were last used.
const NOTE_USES: Duration = Duration::from_secs(60);

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Common name in the subject of the certificate that it showed, if it did.
    pub(super) certificate: Option<String>,
}

/// Somebody who may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// For the audit log: the token's name, or the certificate's.
    pub name: String,
    pub role: Role,
}

/// What is known of tokens, certificates and who asked how often.
#[derive(Debug)]
pub(super) struct Gate {
    store: Store,
    clients: Vec<ApiClient>,
    tokens: RwLock<Tokens>,
    limiter: Mutex<Limiter>,
    uses: Mutex<Uses>,
}

#[derive(Debug)]
struct Tokens {
    by_digest: HashMap<String, StoredToken>,
    read: Instant,
}

#[derive(Debug)]
struct Uses {
    by_name: HashMap<String, u64>,
    noted: Instant,
}

impl Gate {
    pub(super) fn new(store: Store, clients: Vec<ApiClient>, rate: u32) -> Result<Self, StoreError> {
        let now = Instant::now();
        let tokens = Tokens { by_digest: read(&store)?, read: now };
        let uses = Uses { by_name: HashMap::new(), noted: now };
        let limiter = Mutex::new(Limiter::new(rate));
        Ok(Self { store, clients, tokens: RwLock::new(tokens), limiter, uses: Mutex::new(uses) })
    }

    /// Whether there is a token that counts.
    pub(super) fn has_token(&self) -> bool {
        let now = now();
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).by_digest.values().any(|token| token.is_valid(now))
    }

    /// Who asks. Blocks when the token is not known.
    pub(super) fn admit(&self, peer: &Peer, headers: &HeaderMap) -> Result<Who, Problem> {
        let known = self.identify(peer, headers);
        let counted = match &known {
            Ok(who) if who.name != LOCAL => Counted::Known(who.name.clone()),
            _ => Counted::Address(peer.address.ip()),
        };
        let taken = locked(&self.limiter).take(counted, Instant::now());
        taken.map_err(|wait| Problem::too_many(wait.as_secs() + 1))?;
        known
    }

    /// As [`Gate::admit`], where it does not matter who asks.
    pub(super) fn admit_anyone(&self, peer: &Peer) -> Result<Who, Problem> {
        let taken = locked(&self.limiter).take(Counted::Address(peer.address.ip()), Instant::now());
        taken.map_err(|wait| Problem::too_many(wait.as_secs() + 1))?;
        Ok(Who { name: "anyone".to_owned(), role: Role::Viewer })
    }

    fn identify(&self, peer: &Peer, headers: &HeaderMap) -> Result<Who, Problem> {
        if let Some(given) = headers.get(AUTHORIZATION) {
            let token = given.to_str().ok().and_then(|text| text.split_once(' '));
            return match token {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => self.of_token(token.trim()),
                _ => Err(Problem::unauthorized("`Authorization` must be `Bearer` and a token")),
            };
        }
        if let Some(name) = &peer.certificate {
            let client = self.clients.iter().find(|client| client.name == *name);
            let found = client.map(|client| Who { name: format!("certificate {name}"), role: client.role });
            return found.ok_or_else(|| {
                Problem::unauthorized(format!("the certificate of `{name}` has no role: add it to [[api.client]]"))
            });
        }
        // Tokens that have expired are no reason to ask for none.
        let asks_for_none =
            self.tokens.read().unwrap_or_else(PoisonError::into_inner).by_digest.is_empty() && self.clients.is_empty();
        if is_local(peer.address.ip(), headers) && asks_for_none {
            return Ok(Who { name: LOCAL.to_owned(), role: Role::Viewer });
        }
        Err(Problem::unauthorized("a token is needed; `gnomon token create NAME --role ROLE` makes one"))
    }

    fn of_token(&self, token: &str) -> Result<Who, Problem> {
        let digest = token_digest(token);
        let find = || self.tokens.read().unwrap_or_else(PoisonError::into_inner).by_digest.get(&digest).cloned();
        let mut found = find();
        if found.is_none() && self.is_stale(LOOK_AGAIN) {
            self.renew();
            found = find();
        }
        let now = now();
        match found {
            Some(token) if token.is_valid(now) => {
                locked(&self.uses).by_name.insert(token.name.clone(), now);
                Ok(Who { name: token.name, role: token.role })
            }
            Some(token) => Err(Problem::unauthorized(format!("the token `{}` has expired", token.name))),
            None => Err(Problem::unauthorized("the token is not known, or was revoked")),
        }
    }

    fn is_stale(&self, after: Duration) -> bool {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).read.elapsed() >= after
    }

    /// Reads the tokens again. While the store cannot be read, those known before count.
    fn renew(&self) {
        match read(&self.store) {
            Ok(by_digest) => {
                let tokens = Tokens { by_digest, read: Instant::now() };
                *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
            }
            Err(error) => log::warn!("the tokens of the API cannot be read: {error}"),
        }
    }

    /// To be called once a second. Blocks.
    pub(super) fn tend(&self) {
        self.renew();
        let due: Vec<(String, u64)> = {
            let mut uses = locked(&self.uses);
            if uses.noted.elapsed() < NOTE_USES {
                return;
            }
            uses.noted = Instant::now();
            uses.by_name.drain().collect()
        };
        self.note(&due);
    }

    fn note(&self, uses: &[(String, u64)]) {
        if !uses.is_empty()
            && let Err(error) = self.store.note_token_uses(uses)
        {
            log::warn!("when tokens were used is not noted: {error}");
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let due: Vec<(String, u64)> = locked(&self.uses).by_name.drain().collect();
        self.note(&due);
    }
}

/// Who is on the same machine, and no more is known.
const LOCAL: &str = "local";

fn is_local(address: IpAddr, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let names_it = name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    address.is_loopback() && names_it
}

fn read(store: &Store) -> Result<HashMap<String, StoredToken>, StoreError> {
    Ok(store.tokens()?.into_iter().map(|token| (token.digest.clone(), token)).collect())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn peer(address: &str, certificate: Option<&str>) -> Peer {
        Peer { address: address.parse().unwrap(), certificate: certificate.map(str::to_owned) }
    }

    fn stored(name: &str, token: &str, role: Role, expires: Option<u64>) -> StoredToken {
        StoredToken { name: name.into(), role, digest: token_digest(token), created: 1, expires, last_used: None }
    }

    fn gate(folder: &tempfile::TempDir) -> Gate {
        let store = Store::open(&folder.path().join("x.db")).unwrap();
        Gate::new(store, vec![ApiClient { name: "ops".into(), role: Role::Operator }], 1000).unwrap()
    }

    #[test]
    fn the_same_machine_reads_until_there_is_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let named = gate(&folder);
        let asked = named.admit(&peer("127.0.0.1:9", None), &headers(&[("host", "localhost")]));
        assert_eq!(asked.unwrap_err().status, 401, "certificates are asked for");
        let gate = Gate::new(Store::open(&folder.path().join("y.db")).unwrap(), Vec::new(), 1000).unwrap();
        for (address, host, may) in [
            ("127.0.0.1:9", "127.0.0.1:8443", true),
            ("[::1]:9", "[::1]:8443", true),
            ("127.0.0.1:9", "localhost", true),
            ("127.0.0.1:9", "evil.example:8443", false),
            ("127.0.0.1:9", "127.0.0.1.evil.example", false),
            ("192.0.2.1:9", "127.0.0.1:8443", false),
        ] {
            let who = gate.admit(&peer(address, None), &headers(&[("host", host)]));
            assert_eq!(who.clone().map(|who| who.role).ok(), may.then_some(Role::Viewer), "{address} {host}: {who:?}");
        }
        gate.store.add_token(&stored("a", "secret", Role::Viewer, None)).unwrap();
        gate.tend();
        let who = gate.admit(&peer("127.0.0.1:9", None), &headers(&[("host", "localhost")]));
        assert_eq!(who.unwrap_err().status, 401);
    }

    #[test]
    fn tokens_work_at_once_and_not_after_they_expire_or_are_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(&folder);
        let ask = |token: &str| gate.admit(&peer("192.0.2.1:9", None), &headers(&[("authorization", token)]));
        assert_eq!(ask("Bearer secret").unwrap_err().status, 401);
        gate.store.add_token(&stored("a", "secret", Role::Admin, None)).unwrap();
        gate.store.add_token(&stored("old", "stale", Role::Admin, Some(5))).unwrap();
        std::thread::sleep(LOOK_AGAIN);
        assert_eq!(ask("bearer secret").unwrap(), Who { name: "a".into(), role: Role::Admin });
        assert!(ask("Bearer stale").unwrap_err().detail.contains("expired"));
        assert!(ask("Basic secret").unwrap_err().detail.contains("Bearer"));
        gate.store.revoke_token("a").unwrap();
        gate.tend();
        assert_eq!(ask("Bearer secret").unwrap_err().status, 401);
    }

    #[test]
    fn certificates_have_the_role_of_their_name() {
        let folder = tempfile::tempdir().unwrap();
        let gate = gate(&folder);
        let ask = |name: &str| gate.admit(&peer("192.0.2.1:9", Some(name)), &headers(&[]));
        assert_eq!(ask("ops").unwrap(), Who { name: "certificate ops".into(), role: Role::Operator });
        assert!(ask("other").unwrap_err().detail.contains("[[api.client]]"));
    }
}
