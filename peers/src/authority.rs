//! A fleet's own certificate authority: founded with the fleet, held by all its members (ADR 6), so that
//! any of them admits a node and each renews its own certificate.
//!
//! Reads no clock: whoever asks says what time it is.

use std::sync::Arc;
use std::time::Duration;

use catalog::NodeId;
use catalog::fleet::{Authority, FleetId};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;

use crate::names;
use crate::tls::trust;
use crate::validity::Validity;

/// It is replaced when an operator wants it; nothing else ends it in a fleet's life.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// Renewed after two thirds, without anyone's doing: a month is left to notice that it doesn't work.
const NODE_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Valid from before it was made, for machines whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(2 * 60 * 60);

/// Of the hash that a serial number is cut from; RFC 5280 allows 20.
const SERIAL_BYTES: usize = 16;

/// An uncompressed point of P-256.
pub(crate) const PUBLIC_KEY_BYTES: usize = 65;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("the fleet has no certificate authority")]
    NoAuthority,
    #[error("what was given as a node's public key is none")]
    PublicKey,
    #[error("making a certificate failed: {0}")]
    Made(String),
    #[error("{what} can't be used: {why}")]
    Unusable { what: String, why: String },
}

impl From<rcgen::Error> for CertificateError {
    fn from(error: rcgen::Error) -> Self {
        Self::Made(error.to_string())
    }
}

/// A new authority for the fleet.
///
/// # Errors
/// [`CertificateError::Made`]: the system gave no random bytes.
pub fn found(fleet: &FleetId, now_ms: i64) -> Result<Authority, CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = authority_params(fleet);
    set_life(&mut params, now_ms, AUTHORITY_LIFE);
    let certificate = params.self_signed(&key)?;
    Ok(Authority { certificate: certificate.der().as_ref().into(), key: key.serialized_der().into() })
}

/// A certificate for the node, by the last of the fleet's authorities.
///
/// # Errors
/// [`CertificateError`].
pub fn sign(
    authorities: &[Authority],
    fleet: &FleetId,
    node: NodeId,
    public_key: &[u8],
    now_ms: i64,
) -> Result<Arc<[u8]>, CertificateError> {
    let authority = authorities.last().ok_or(CertificateError::NoAuthority)?;
    let key = KeyPair::try_from(&*authority.key)?;
    let issuer = Issuer::new(authority_params(fleet), key);
    let public_key = PublicKey::parse(public_key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Lockstep node {node}"));
    params.subject_alt_names.push(SanType::URI(Ia5String::try_from(names::uri(fleet, node))?));
    params.key_usages.push(KeyUsagePurpose::DigitalSignature);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial_number(&public_key.0, now_ms));
    set_life(&mut params, now_ms, NODE_LIFE);
    Ok(params.signed_by(&public_key, &issuer)?.der().as_ref().into())
}

/// Whether a node's certificate is to be made anew: after two thirds of its life, or when another
/// authority signs now than when it was made.
pub fn renewal_is_due(certificate: &CertificateDer<'_>, authorities: &[Authority], now_ms: i64) -> bool {
    let Some(Validity { not_before_ms, not_after_ms }) = Validity::of(certificate) else { return true };
    let life_ms = not_after_ms.saturating_sub(not_before_ms);
    now_ms.saturating_sub(not_before_ms) >= life_ms / 3 * 2
        || authorities.last().is_some_and(|authority| !has_signed(&authority.certificate, certificate))
}

/// Whether the authority signed the certificate.
pub fn has_signed(authority: &[u8], certificate: &CertificateDer<'_>) -> bool {
    let authority = CertificateDer::from(authority);
    let begin = |certificate| Validity::of(certificate).map(|validity| validity.not_before_ms);
    let Some((one, other)) = begin(&authority).zip(begin(certificate)) else { return false };
    // When both are valid, though the clock of whoever signed was behind.
    trust::is_signed_by(&authority, certificate, one.max(other))
}

/// What an authority is called: SHA-256 of its certificate, in hexadecimal.
pub fn fingerprint(certificate: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, certificate);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same for every authority of a fleet but its key: its name is found again without reading its
/// certificate.
fn authority_params(fleet: &FleetId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Lockstep fleet {fleet}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn set_life(params: &mut CertificateParams, now_ms: i64, life: Duration) {
    let since_1970 = Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
    let begin = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = begin + since_1970.saturating_sub(BACKDATED);
    params.not_after = begin + since_1970 + life;
}

/// Two certificates of one authority never have the same, though a renewed one has the same key.
fn serial_number(public_key: &[u8], now_ms: i64) -> SerialNumber {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(public_key);
    hash.update(&now_ms.to_be_bytes());
    let mut serial = hash.finish().as_ref()[..SERIAL_BYTES].to_vec();
    serial[0] &= 0x7f;
    SerialNumber::from(serial)
}

struct PublicKey([u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        let key = <[u8; PUBLIC_KEY_BYTES]>::try_from(bytes).map_err(|_| CertificateError::PublicKey)?;
        Ok(Self(key))
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// Whether the owner of the key signed the message: also whether it is a key at all.
pub(crate) fn is_signed(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key).verify(message, signature).is_ok()
}
