//! Mutual TLS 1.3 between nodes: whom this node trusts and what it shows, replaced while it runs.
//!
//! No session is resumed: each connection proves anew what it is.

pub(crate) mod handshake;
mod material;
pub(crate) mod trouble;
pub(crate) mod trust;

use std::sync::Arc;

use catalog::NodeId;
use catalog::fleet::FleetId;
use metrics::gauge;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;

pub use material::Material;

use crate::authority::{self, CertificateError};
use crate::names;
use crate::refusal::Refusal;
use crate::validity::Validity;

/// A node's place in a change of authorities, by their fingerprints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Its certificate is of an authority that the operator runs: those of the fleet don't matter to it.
    pub own: bool,
    /// None: by none that it trusts.
    pub signed_by: Option<String>,
    pub authorities: Vec<String>,
}

/// Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Tls(Arc<watch::Sender<Arc<Configs>>>);

pub(crate) struct Configs {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
    pub material: Material,
    /// Rises whenever an authority is trusted no more: what was connected under it is closed.
    pub generation: u64,
}

impl Tls {
    /// # Errors
    /// [`CertificateError::Unusable`].
    pub fn new(material: Material) -> Result<Self, CertificateError> {
        Ok(Self(Arc::new(watch::Sender::new(Arc::new(Configs::new(material, 0)?)))))
    }

    /// From now on connections show and trust this. Connections go on, unless an authority that was
    /// trusted isn't any more.
    ///
    /// # Errors
    /// [`CertificateError::Unusable`]; then everything stays as it was.
    pub fn replace(&self, material: Material) -> Result<(), CertificateError> {
        let held = self.configs();
        if held.material == material {
            return Ok(());
        }
        let trusts_less = held.material.authorities.iter().any(|held| !material.authorities.contains(held));
        let generation = held.generation + u64::from(trusts_less);
        self.0.send_replace(Arc::new(Configs::new(material, generation)?));
        Ok(())
    }

    /// Whose signature this node shows, and whom it trusts.
    pub fn trust(&self) -> Trust {
        let Material { chain, authorities, fleet, .. } = &self.configs().material;
        let signs = |authority: &&CertificateDer<'_>| {
            chain.first().is_some_and(|certificate| authority::has_signed(authority, certificate))
        };
        Trust {
            own: fleet.is_none(),
            signed_by: authorities.iter().rev().find(signs).map(|found| authority::fingerprint(found)),
            authorities: authorities.iter().map(|authority| authority::fingerprint(authority)).collect(),
        }
    }

    /// When this node's certificate ends, in milliseconds since 1970.
    pub fn expires_ms(&self) -> Option<i64> {
        let configs = self.configs();
        Validity::of(configs.material.chain.first()?).map(|validity| validity.not_after_ms)
    }

    /// Sets `lockstep_certificate_expiry_seconds`, how long this node's certificate is still valid; below
    /// zero it has expired.
    pub fn measure(&self, now_ms: i64) {
        if let Some(expires_ms) = self.expires_ms() {
            let seconds = expires_ms.saturating_sub(now_ms) / 1_000;
            gauge!("lockstep_certificate_expiry_seconds").set(seconds as f64);
        }
    }

    pub(crate) fn configs(&self) -> Arc<Configs> {
        self.0.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Configs>> {
        self.0.subscribe()
    }
}

impl Configs {
    fn new(material: Material, generation: u64) -> Result<Self, CertificateError> {
        let unusable = |error: &dyn std::fmt::Display| CertificateError::Unusable {
            what: "this node's certificate".into(),
            why: error.to_string(),
        };
        let provider = trust::provider();
        let roots = Arc::new(trust::roots(&material.authorities)?);
        let algorithms = provider.signature_verification_algorithms;
        let trusted = trust::Trusted { roots: Some(roots.clone()), algorithms };
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| unusable(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trusted))
            .with_client_auth_cert(material.chain.clone(), material.key.clone_key())
            .map_err(|e| unusable(&e))?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        // Who joins has no certificate yet; whoever calls without one is refused in the hello.
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| unusable(&e))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| unusable(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(material.chain.clone(), material.key.clone_key())
            .map_err(|e| unusable(&e))?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), material, generation })
    }

    /// Whether the certificate, whose chain is trusted, is that node's.
    pub fn is_of(&self, certificate: &CertificateDer<'_>, node: NodeId) -> Result<(), Refusal> {
        let Some(fleet) = &self.material.fleet else { return Ok(()) };
        match names::named(certificate) {
            Some((named_fleet, named)) if named_fleet == *fleet && named == node => Ok(()),
            Some((named_fleet, _)) if named_fleet != *fleet => {
                Err(Refusal::Fleet(format!("the certificate is of fleet {named_fleet}, not of {fleet}")))
            }
            Some((_, named)) => {
                Err(Refusal::Certificate(format!("the certificate is node {named}'s, not node {node}'s")))
            }
            None => Err(Refusal::Certificate("the certificate names no node of a fleet".into())),
        }
    }
}

/// How connections between nodes are protected.
#[derive(Clone)]
pub enum Security {
    Tls(Tls),
    /// Not at all: whoever calls is believed. Only a simulation, whose network has no one else in it and
    /// whose bytes must come from a seed, may make this.
    UnprotectedForSimulation,
}

impl Security {
    /// The fleet that certificates name; own certificates name none.
    pub fn fleet(&self) -> Option<FleetId> {
        match self {
            Self::Tls(tls) => tls.configs().material.fleet.clone(),
            Self::UnprotectedForSimulation => None,
        }
    }
}
