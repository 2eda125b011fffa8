//! Where the policy API listens, and for whom.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::api::Role;

/// Settings of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// `None`: HTTP without TLS, on loopback addresses only.
    pub tls: Option<ApiTls>,
    /// Requests a second that a token, a client certificate or an address may make in the long run.
    pub rate: u32,
    /// Roles of client certificates by the common name of their subject.
    pub clients: Vec<ApiClient>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whose client certificates are accepted; `None`: nobody's.
    pub client_ca: Option<PathBuf>,
}

/// Who shows a certificate with this common name has this role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiClient {
    pub name: String,
    pub role: Role,
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: None, tls: None, rate: 100, clients: Vec::new() }
    }
}
