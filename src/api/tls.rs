//! TLS: certificate and key of the API, and what a client's certificate says of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::config::ApiTls;

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {source}; [api] {key} must be a PEM file that this user can read", path.display())]
    File { key: &'static str, path: PathBuf, source: PemError },
    #[error("{}: there is no certificate in it; [api] {key} must be a PEM file with one", path.display())]
    Empty { key: &'static str, path: PathBuf },
    #[error("{}: not a certificate of an authority: {source}", path.display())]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("{}: client certificates cannot be checked with it: {text}", path.display())]
    Verifier { path: PathBuf, text: String },
    #[error("[api] certificate {} and key {} do not go together: {source}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// Reads the files.
pub(super) fn acceptor(tls: &ApiTls) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates("certificate", &tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|source| file("key", &tls.key, source))?;
    let versions = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let pair = |source| TlsError::Pair { certificate: tls.certificate.clone(), key: tls.key.clone(), source };
    let builder = versions.map_err(pair)?;
    let builder = match &tls.client_ca {
        Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Clients may show a certificate; one that is shown must be good.
fn verifier(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", path)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let built = builder.allow_unauthenticated().build();
    built.map_err(|error| TlsError::Verifier { path: path.to_owned(), text: error.to_string() })
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| file(key, path, source);
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if found.is_empty() { Err(TlsError::Empty { key, path: path.to_owned() }) } else { Ok(found) }
}

fn file(key: &'static str, path: &Path, source: PemError) -> TlsError {
    TlsError::File { key, path: path.to_owned(), source }
}

/// The common name in the subject of a certificate (RFC 5280), where it has exactly one.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(outer, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest, VERSION)?.1;
    }
    // Serial number, algorithm of the signature, issuer, validity.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    let (mut subject, _) = element(rest, SEQUENCE)?;
    let mut names = Vec::new();
    while !subject.is_empty() {
        let (mut set, after) = element(subject, SET)?;
        subject = after;
        while !set.is_empty() {
            let (attribute, after) = element(set, SEQUENCE)?;
            set = after;
            let (kind, value) = element(attribute, OBJECT)?;
            if kind == COMMON_NAME {
                let text = TEXTS.iter().find_map(|tag| element(value, *tag))?.0;
                names.push(String::from_utf8(text.to_vec()).ok()?);
            }
        }
    }
    if names.len() == 1 { names.pop() } else { None }
}

const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
/// UTF8String, PrintableString.
const TEXTS: [u8; 2] = [0x0c, 0x13];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The content of the first element of some DER, which must have a tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let split = rest.split_at_checked(length)?;
    (first == tag).then_some(split)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["x.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in names {
            params.distinguished_name.push(kind.clone(), *text);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_wherever_it_stands() {
        let long = "x".repeat(60);
        for name in ["ops", "Ähre", &long] {
            let der = certificate(&[
                (DnType::OrganizationName, "Example"),
                (DnType::CommonName, name),
                (DnType::CountryName, "XX"),
            ]);
            assert_eq!(common_name(&der).as_deref(), Some(name));
        }
        assert_eq!(common_name(&certificate(&[(DnType::OrganizationName, "ops")])), None);
    }

    #[test]
    fn damaged_certificates_have_no_name_or_theirs() {
        let der = certificate(&[(DnType::CommonName, "ops")]);
        for cut in 0..der.len() {
            assert_eq!(common_name(&der[..cut]), None, "{cut} bytes");
        }
        for place in 0..der.len() {
            for bit in 0..8 {
                let mut changed = der.clone();
                changed[place] ^= 1 << bit;
                let _ = common_name(&changed);
            }
        }
    }
}
