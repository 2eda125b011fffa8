//! The table of the file about the policy API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::Api;
use super::text::ListenText;
use crate::api::Role;

/// The policy API: HTTP with JSON, described at `/api/v1/docs`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawApi {
    /// Address and port, such as "127.0.0.1:8443". Left out: none; `gnomon serve` then takes 127.0.0.1:8443. Other than
    /// loopback addresses need a certificate, and a token in the store (`gnomon token create`).
    pub listen: Option<ListenText>,
    /// Certificate chain, a PEM file. With it the API speaks HTTPS.
    #[schemars(length(min = 1))]
    pub certificate: Option<String>,
    /// Private key of the certificate, a PEM file.
    #[schemars(length(min = 1))]
    pub key: Option<String>,
    /// Certificates of authorities, a PEM file: clients may show certificates of theirs instead of tokens.
    #[schemars(length(min = 1))]
    pub client_ca: Option<String>,
    /// Requests a second that a token, a client certificate or, before either is known, an address may make in the long
    /// run; twice as many at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rate: u32,
    /// Roles of client certificates.
    pub client: Vec<RawApiClient>,
}

/// A client that shows a certificate.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApiClient {
    /// Common name in the certificate's subject.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    pub role: Role,
}

impl Default for RawApi {
    fn default() -> Self {
        let Api { rate, .. } = Api::default();
        Self { listen: None, certificate: None, key: None, client_ca: None, rate, client: Vec::new() }
    }
}
