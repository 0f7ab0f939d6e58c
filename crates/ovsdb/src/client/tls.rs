//! `ssl:` remotes: both sides present certificates of one CA, as ovsdb-server asks for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;

/// PEM files and whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    pub private_key: PathBuf,
    /// Our certificate, followed by intermediate ones if there are any.
    pub certificate: PathBuf,
    pub ca_cert: PathBuf,
    /// The name that the server's certificate must carry. `None`, as every OVS program does it, trusts all
    /// certificates of the CA: those of ovs-pki(8) are all made out to the same name, and remotes are addresses.
    pub server_name: Option<String>,
}

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{}: {source}", path.display())]
    Pem {
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("{}: no certificate in this file", .0.display())]
    Empty(PathBuf),
    #[error("{}: {source}", path.display())]
    Unusable { path: PathBuf, source: Error },
    #[error("{0:?} is not a host name")]
    Name(String),
    #[error(transparent)]
    Rustls(#[from] Error),
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrap = |source| TlsError::Pem {
        path: path.to_owned(),
        source,
    };
    let found = CertificateDer::pem_file_iter(path)
        .map_err(wrap)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrap)?;
    if found.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(found)
}

impl TlsConfig {
    /// Reads the files.
    pub(super) fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca_cert)? {
            roots
                .add(certificate)
                .map_err(|source| TlsError::Unusable {
                    path: self.ca_cert.clone(),
                    source,
                })?;
        }
        let chain = certificates(&self.certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.private_key).map_err(|source| TlsError::Pem {
                path: self.private_key.clone(),
                source,
            })?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if self.server_name.is_some() {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_webpki_verifier(
                verifier.map_err(|e| Error::General(format!("trust anchors: {e}")))?,
            )
        } else {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(ChainVerifier { roots, provider }))
        };
        let config = builder
            .with_client_auth_cert(chain, key)
            .map_err(|source| TlsError::Unusable {
                path: self.private_key.clone(),
                source,
            })?;
        Ok(Arc::new(config))
    }

    pub(super) fn server_name(&self) -> Result<ServerName<'static>, TlsError> {
        // Without a name to check none need be sent either; the address keeps rustls from sending one.
        let name = self.server_name.as_deref().unwrap_or("127.0.0.1");
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))
    }
}

/// Checks that the certificate was signed by our CA, is in its time and proves possession of its key: everything but
/// the name.
#[derive(Debug)]
struct ChainVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
