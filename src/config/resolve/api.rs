//! Where the policy API listens: what of it contradicts itself.

use std::net::SocketAddr;

use crate::config::api::{Api, ApiClient, ApiTls};
use crate::config::document::Place;
use crate::config::problem::Problems;
use crate::config::raw_api::{RawApi, RawApiClient};
use crate::config::shape::Shaped;

pub(super) fn resolve(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Api {
    let place = Place::root().key("api");
    let raw: RawApi = shaped.section(problems, "api");
    let listen = raw.listen.and_then(|text| {
        let address: Option<SocketAddr> = text.0.parse().ok();
        if address.is_none() {
            let problem = problems.error(&place.key("listen"), format!("`{}` is not an address and a port", text.0));
            problem.allowed("such as \"127.0.0.1:8443\" or \"[::1]:8443\"");
        }
        address
    });
    let tls = match (raw.certificate, raw.key) {
        (Some(certificate), Some(key)) => Some(ApiTls {
            certificate: certificate.into(),
            key: key.into(),
            client_ca: raw.client_ca.as_ref().map(Into::into),
        }),
        (None, None) => None,
        (certificate, _) => {
            let (given, missing) = if certificate.is_some() { ("certificate", "key") } else { ("key", "certificate") };
            let problem = problems.error(&place.key(given), format!("`{given}` without `{missing}`"));
            problem.allowed(format!("both, or neither for HTTP on a loopback address; `{missing}` is a PEM file"));
            None
        }
    };
    let is_open = listen.is_some_and(|address| !address.ip().is_loopback());
    if is_open && tls.is_none() && !shaped.touched(&place) {
        let message = "the API listens on other than loopback addresses only with a certificate";
        let problem = problems.error(&place.key("listen"), message);
        problem.allowed("`certificate` and `key` beside it, or a loopback address such as \"127.0.0.1:8443\"");
    }
    let place_of_ca = place.key("client_ca");
    if raw.client_ca.is_some() && tls.is_none() && !shaped.touched(&place) {
        let problem = problems.error(&place_of_ca, "client certificates are shown in TLS only");
        problem.allowed("`certificate` and `key` beside it");
    }
    if raw.client_ca.is_none() && !raw.client.is_empty() && !shaped.touched(&place) {
        let problem = problems.error(&place.key("client"), "nobody's client certificates are accepted");
        problem.allowed("`client_ca` in [api], a PEM file with the authority that signs them");
    }
    Api { listen, tls, rate: raw.rate, clients: clients(problems, &place.key("client"), raw.client) }
}

fn clients(problems: &mut Problems<'_>, place: &Place, raw: Vec<RawApiClient>) -> Vec<ApiClient> {
    let mut clients: Vec<ApiClient> = Vec::new();
    for (index, RawApiClient { name, role }) in raw.into_iter().enumerate() {
        if clients.iter().any(|client| client.name == name) {
            let message = format!("two clients with the name `{name}`");
            problems.error(&place.index(index).key("name"), message).allowed("one role for each name");
        }
        clients.push(ApiClient { name, role });
    }
    clients
}
