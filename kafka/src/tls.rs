//! TLS to brokers: what is trusted, what we show, and the handshake, over any byte stream.
//!
//! Trust and identity are read at each dial, so that a rotated certificate is used by the next
//! connection. When they are what they were, the rustls configuration of the last dial is used
//! again, with its session cache; the system's own CAs are read once for each client.
//!
//! Never accepts a chain that isn't trusted, whatever `ssl.endpoint.identification.algorithm` says.
//! Revocation lists aren't consulted (Java's default doesn't either).

mod pem;
mod trouble;
mod verifier;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;

use crate::config::{ConfigError, Identity, TlsSettings};
use crate::connection::BoxedStream;
use crate::error::Error;
use crate::secret::{Secret, Value};

pub(crate) use pem::{DECRYPT, Store, convert_identity, convert_trust};
pub(crate) use trouble::{in_stream, not_kafka};

/// Two round trips and some signatures; a broker that starts under load takes its time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// One cluster's TLS settings, and what the last dial made of them.
pub(crate) struct Tls {
    settings: TlsSettings,
    last: Mutex<Option<(Material, Arc<rustls::ClientConfig>)>>,
}

/// What the settings led to at one time. `None` for trust is the system's.
#[derive(Clone, PartialEq, Eq)]
struct Material {
    trust: Option<Secret>,
    key: Option<Secret>,
    chain: Option<Secret>,
}

impl Tls {
    pub fn new(settings: TlsSettings) -> Self {
        Self { settings, last: Mutex::default() }
    }

    pub fn shows_certificate(&self) -> bool {
        self.settings.identity.is_some()
    }

    /// Whether [`prepare`](Self::prepare) touches the file system.
    pub fn reads_files(&self) -> bool {
        let TlsSettings { trust, identity, .. } = &self.settings;
        let values = trust.iter().chain(identity.iter().flat_map(Identity::values));
        trust.is_none() || values.into_iter().any(|value| !value.is_literal())
    }

    /// Reads what trust and identity are now. May block on the file system.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that can't be read or used.
    pub fn prepare(&self) -> Result<Arc<rustls::ClientConfig>, ConfigError> {
        let material = Material::read(&self.settings)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = last.as_ref().filter(|(known, _)| *known == material) {
            return Ok(config.clone());
        }
        let config = Arc::new(client_config(&self.settings, &material)?);
        *last = Some((material, config.clone()));
        Ok(config)
    }
}

/// The client's side of the handshake with the broker at `address` (`host:port`).
///
/// # Errors
/// [`Error::Tls`] with what to look at.
pub(crate) async fn handshake(
    config: Arc<rustls::ClientConfig>,
    address: &str,
    stream: BoxedStream,
) -> Result<BoxedStream, Error> {
    let failed = |reason: String| Error::Tls { address: address.to_owned(), reason };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| failed(format!("'{host}' is neither a DNS name nor an IP address")))?;
    let connecting = tokio_rustls::TlsConnector::from(config).connect(name, stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(failed(trouble::in_handshake(&error))),
        Err(_) => Err(failed(format!(
            "no TLS handshake within {HANDSHAKE_TIMEOUT:?}; a listener that doesn't speak TLS may stay \
             silent so (see security.protocol)"
        ))),
    }
}

/// Checks what can be checked without opening a file or reading a variable.
///
/// # Errors
/// [`ConfigError`] naming the key.
pub(crate) fn check_literals(settings: &TlsSettings) -> Result<(), ConfigError> {
    let literal = |value: &Value| if value.is_literal() { value.resolve().map(Some) } else { Ok(None) };
    if let Some(value) = &settings.trust
        && let Some(secret) = literal(value)?
    {
        roots(value, &secret)?;
    }
    if let Some(Identity { key, chain: Some(chain) }) = &settings.identity {
        let pair = (literal(key)?, literal(chain)?);
        let parsed_key = pair.0.as_ref().map(|secret| pem::key(key, secret)).transpose()?;
        let parsed_chain = pair.1.as_ref().map(|secret| pem::certificates(chain, secret)).transpose()?;
        if let (Some(parsed_key), Some(parsed_chain)) = (parsed_key, parsed_chain) {
            certified(key, chain, parsed_key, parsed_chain)?;
        }
    }
    Ok(())
}

impl Identity {
    fn values(&self) -> impl Iterator<Item = &Value> {
        std::iter::once(&self.key).chain(&self.chain)
    }
}

impl Material {
    fn read(settings: &TlsSettings) -> Result<Self, ConfigError> {
        let read = |value: Option<&Value>| value.map(Value::resolve).transpose();
        let identity = settings.identity.as_ref();
        Ok(Self {
            trust: read(settings.trust.as_ref())?,
            key: read(identity.map(|i| &i.key))?,
            chain: read(identity.and_then(|i| i.chain.as_ref()))?,
        })
    }
}

/// The one provider of cryptography in the process, never installed as its default: nothing else
/// should depend on who came first.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client_config(settings: &TlsSettings, material: &Material) -> Result<rustls::ClientConfig, ConfigError> {
    let roots = Arc::new(match (&settings.trust, &material.trust) {
        (Some(value), Some(secret)) => roots(value, secret)?,
        _ => system_roots()?,
    });
    let provider = provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| ConfigError::new("security.protocol", e.to_string()))?;
    let builder = if settings.verify_host_name {
        builder.with_root_certificates(roots)
    } else {
        let algorithms = provider.signature_verification_algorithms;
        let verifier = verifier::AnyHostName::new(roots, algorithms);
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    };
    let (Some(identity), Some(key)) = (&settings.identity, &material.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let (chain_value, chain) = match (&identity.chain, &material.chain) {
        (Some(value), Some(secret)) => (value, secret),
        _ => (&identity.key, key),
    };
    let chain = pem::certificates(chain_value, chain)?;
    let key = certified(&identity.key, chain_value, pem::key(&identity.key, key)?, chain)?;
    let resolver = rustls::sign::SingleCertAndKey::from(key);
    Ok(builder.with_client_cert_resolver(Arc::new(resolver)))
}

fn roots(value: &Value, secret: &Secret) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in pem::certificates(value, secret)?.into_iter().enumerate() {
        store.add(certificate).map_err(|e| {
            let message = format!("its certificate number {} can't be read: {e}", index + 1);
            ConfigError::new(value.key(), message)
        })?;
    }
    Ok(store)
}

fn system_roots() -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    // Of hundreds of certificates a few may be odd; those left out can't be trusted by accident.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        let message = "this node's system has no CA certificates; give those of the brokers here, or \
                       install the system's (Debian: ca-certificates)";
        return Err(ConfigError::new("ssl.truststore.certificates", message));
    }
    Ok(store)
}

fn certified(
    key_value: &Value,
    chain_value: &Value,
    key: PrivateKeyDer<'static>,
    chain: Vec<CertificateDer<'static>>,
) -> Result<CertifiedKey, ConfigError> {
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let message = format!(
                "isn't the key of the first certificate in {}; that must be the client's own, CAs follow it",
                chain_value.key()
            );
            ConfigError::new(key_value.key(), message)
        }
        rustls::Error::InvalidCertificate(_) => {
            ConfigError::new(chain_value.key(), "its first certificate can't be read")
        }
        _ => {
            let message = "isn't a private key that can be used: RSA of 2048 bits or more, ECDSA or Ed25519";
            ConfigError::new(key_value.key(), message)
        }
    })
}
