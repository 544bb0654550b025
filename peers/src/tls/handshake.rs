//! From a byte stream to one that is protected, and what is known of who is at its other end.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Configs, Security, trust};
use crate::dial::BoxedStream;
use crate::join::Channel;
use crate::join::proof::{Binding, EXPORTER_LABEL};
use crate::validity::Validity;

/// Certificates of nodes aren't compared with host names; rustls wants one all the same.
fn any_name() -> ServerName<'static> {
    ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// What no TLS session has: for networks without anyone else in them.
const UNPROTECTED: Binding = [0; 32];

pub(crate) struct Secured {
    pub stream: BoxedStream,
    /// Of the other end; its chain leads to an authority that is trusted.
    pub certificate: Option<CertificateDer<'static>>,
    /// What was trusted then.
    pub configs: Option<Arc<Configs>>,
    pub binding: Binding,
    /// When the first of both ends' certificates expires: the connection must not outlive it. None: without
    /// certificates, and for one that says nothing of it.
    pub expires: Option<Instant>,
}

impl Secured {
    fn unprotected(stream: BoxedStream) -> Self {
        Self { stream, certificate: None, configs: None, binding: UNPROTECTED, expires: None }
    }

    fn of<S, D>(stream: S, chain: Option<&[CertificateDer<'_>]>, binding: Binding, configs: D) -> Self
    where
        S: crate::dial::Stream + 'static,
        D: Into<Option<Arc<Configs>>>,
    {
        let (chain, configs) = (chain.unwrap_or_default(), configs.into());
        let ours = configs.iter().flat_map(|configs| &configs.material.chain);
        let expires = chain.iter().chain(ours).filter_map(expiry).min();
        let certificate = chain.first().map(|first| first.clone().into_owned());
        Self { stream: Box::new(stream), certificate, configs, binding, expires }
    }
}

/// None: not said, or further away than the clock counts.
fn expiry(certificate: &CertificateDer<'_>) -> Option<Instant> {
    let ends_ms = u64::try_from(Validity::of(certificate)?.not_after_ms).unwrap_or(0);
    let left = Duration::from_millis(ends_ms).saturating_sub(Duration::from_secs(UnixTime::now().as_secs()));
    Instant::now().checked_add(left)
}

/// Ends when a connection has lasted as long as the certificates that it was made with.
pub(crate) async fn expired(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// As the one that calls a member.
pub(crate) async fn call(security: &Security, stream: BoxedStream) -> io::Result<Secured> {
    let Security::Tls(tls) = security else { return Ok(Secured::unprotected(stream)) };
    let configs = tls.configs();
    let stream = TlsConnector::from(configs.client.clone()).connect(any_name(), stream).await?;
    let session = &stream.get_ref().1;
    let certificate = session.peer_certificates().map(<[_]>::to_vec);
    let binding =
        session.export_keying_material(UNPROTECTED, EXPORTER_LABEL, None).map_err(io::Error::other)?;
    Ok(Secured::of(stream, certificate.as_deref(), binding, configs))
}

/// As one that isn't a member and will have the member prove itself.
pub(crate) async fn join(channel: Channel, stream: BoxedStream) -> io::Result<Secured> {
    if channel == Channel::UnprotectedForSimulation {
        return Ok(Secured::unprotected(stream));
    }
    let provider = trust::provider();
    let any = trust::Trusted { roots: None, algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any))
        .with_no_client_auth();
    config.enable_sni = false;
    let stream = TlsConnector::from(Arc::new(config)).connect(any_name(), stream).await?;
    let session = &stream.get_ref().1;
    let binding =
        session.export_keying_material(UNPROTECTED, EXPORTER_LABEL, None).map_err(io::Error::other)?;
    Ok(Secured::of(stream, None, binding, None))
}

/// As the one that is called.
///
/// # Errors
/// With the bare stream, on which the caller was told why.
pub(crate) async fn accept(
    security: &Security,
    stream: BoxedStream,
) -> Result<Secured, (io::Error, BoxedStream)> {
    let Security::Tls(tls) = security else { return Ok(Secured::unprotected(stream)) };
    let configs = tls.configs();
    let stream = TlsAcceptor::from(configs.server.clone()).accept(stream).into_fallible().await?;
    let session = &stream.get_ref().1;
    let certificate = session.peer_certificates().map(<[_]>::to_vec);
    match session.export_keying_material(UNPROTECTED, EXPORTER_LABEL, None) {
        Ok(binding) => Ok(Secured::of(stream, certificate.as_deref(), binding, configs)),
        Err(error) => Err((io::Error::other(error), stream.into_inner().0)),
    }
}
