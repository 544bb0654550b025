//! Nodes with certificates.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use catalog::fleet::Authority;
use catalog::{FleetId, NodeId};
use peers::identity::{Identity, NodeKey};
use peers::tls::Material;
use peers::{Security, Tls, authority};
use rustls::pki_types::CertificateDer;

pub const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("this age")
}

pub fn der(bytes: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from(bytes.to_vec())
}

pub fn identity(
    signing: &[Authority],
    trusted: &[&Authority],
    fleet: &FleetId,
    node: NodeId,
    at_ms: i64,
) -> Identity {
    let directory = tempfile::tempdir().expect("a directory");
    let key = NodeKey::open_or_create(directory.path()).expect("a key");
    let certificate = authority::sign(signing, fleet, node, key.public(), at_ms).expect("signed");
    let trusted = trusted.iter().map(|authority| der(&authority.certificate)).collect();
    Identity::of(key, der(&certificate), trusted).expect("an identity")
}

pub fn tls(identity: &Identity) -> Tls {
    Tls::new(Material::of_fleet(identity)).expect("usable")
}

/// A node's security, by the fleet's one authority.
pub fn secured(authority: &Authority, fleet: &FleetId, node: NodeId) -> Security {
    let signing = std::slice::from_ref(authority);
    Security::Tls(tls(&identity(signing, &[authority], fleet, node, now_ms())))
}

pub fn found(fleet: &FleetId) -> Arc<Authority> {
    Arc::new(authority::found(fleet, now_ms()).expect("founded"))
}

/// Trusts whoever answers.
#[derive(Debug)]
pub struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
