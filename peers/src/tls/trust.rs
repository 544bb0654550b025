//! Whose certificates count: chains that lead to a trusted authority, whatever host they name. Which
//! node it is, is asked afterwards ([`crate::names`]).
//!
//! Leaves out the comparison of host names and nothing else: chain, validity, purpose and signatures are
//! verified by rustls' own functions.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, PeerIncompatible, RootCertStore, SignatureScheme};

use crate::authority::CertificateError;

/// The one provider of cryptography, never installed as the process's default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn roots(authorities: &[CertificateDer<'_>]) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for (index, authority) in authorities.iter().enumerate() {
        roots.add(authority.clone().into_owned()).map_err(|error| CertificateError::Unusable {
            what: format!("the authority's certificate number {}", index + 1),
            why: error.to_string(),
        })?;
    }
    Ok(roots)
}

/// Whether the authority signed the certificate, both being valid at that time.
pub(crate) fn is_signed_by(
    authority: &CertificateDer<'_>,
    certificate: &CertificateDer<'_>,
    at_ms: i64,
) -> bool {
    let Ok(roots) = roots(std::slice::from_ref(authority)) else { return false };
    let Ok(certificate) = ParsedCertificate::try_from(certificate) else { return false };
    let at = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at_ms).unwrap_or(0)));
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&certificate, &roots, &[], at, algorithms).is_ok()
}

/// Which certificates a calling node accepts of the one that it calls.
#[derive(Debug)]
pub(crate) struct Trusted {
    /// None: any certificate, because the node is to prove itself otherwise (it is joined).
    pub roots: Option<Arc<RootCertStore>>,
    pub algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _any: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
