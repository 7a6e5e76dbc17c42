//! Certificates and keys from PEM files, for rustls with the ring provider.

use crate::error::ServeError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

fn fail(path: &Path, reason: impl ToString) -> ServeError {
    ServeError::Tls { path: path.into(), reason: reason.to_string() }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificates of a file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let all = CertificateDer::pem_file_iter(path).map_err(|e| fail(path, e))?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|e| fail(path, e))?;
    if all.is_empty() { Err(fail(path, "expected a certificate (PEM), found none")) } else { Ok(all) }
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, ServeError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| fail(path, e))?;
    }
    Ok(Arc::new(roots))
}

/// A server with this certificate; with `client_ca`, only for clients whose certificate one of these authorities signed.
pub(crate) fn server(
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, ServeError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| fail(key, e))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| fail(certificate, e))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(path)?, provider());
            builder.with_client_cert_verifier(verifier.build().map_err(|e| fail(path, e))?)
        }
    };
    Ok(Arc::new(builder.with_single_cert(chain, private).map_err(|e| fail(certificate, e))?))
}

/// A client that trusts servers whose certificate one of these authorities signed.
pub(crate) fn client(ca: &Path) -> Result<Arc<ClientConfig>, ServeError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| fail(ca, e))?;
    Ok(Arc::new(builder.with_root_certificates(roots(ca)?).with_no_client_auth()))
}
