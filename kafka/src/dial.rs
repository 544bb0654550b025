//! From an address to a connection that may be used: byte stream, TLS, versions, SASL, in that
//! order, each with a deadline of its own.
//!
//! Never retries and keeps nothing of what it read but the last TLS configuration.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::config::{ClientConfig, ConfigError, SaslSettings};
use crate::connection::{BoxedStream, Connection, ConnectionOptions};
use crate::error::Error;
pub use crate::sasl::NONCE_BYTES;
use crate::sasl::{self, Login};
use crate::tls::{self, Tls};

/// A broker that doesn't take a connection in this time counts as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel gives a connection up whose peer hasn't acknowledged what was sent to it for so long. By itself
/// it would try for a quarter of an hour: when a cut network is mended, it would deliver a request that a
/// frozen process sent long before, after others have ceased to wait for it. As long as a produce request
/// may take in all; whoever takes over waits longer.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);

/// Secrets lie on a local disk; a network file system that hangs must not hang us.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Of a session's lifetime a connection uses this share. Java renews sessions between 85 and 95 %
/// of it; spread over as much, connections that began together don't end together.
const LIFETIME_PERCENT: std::ops::RangeInclusive<u32> = 85..=95;

/// Who neither logs in nor shows a certificate.
const ANONYMOUS: &str = "User:ANONYMOUS";

pub type DialFuture = Pin<Box<dyn Future<Output = std::io::Result<BoxedStream>> + Send>>;

/// How byte streams to `host:port` are made, and chance: the seam for the simulated network. TLS
/// and SASL run on top of what it returns.
pub trait Dial: Send + Sync {
    fn dial(&self, address: Arc<str>) -> DialFuture;

    /// Unpredictable bytes, for nonces and for spreading. A simulation takes them from its seed.
    #[expect(clippy::disallowed_methods, reason = "production's source")]
    fn random(&self) -> [u8; NONCE_BYTES] {
        rand::random()
    }
}

/// Plain TCP.
pub struct TcpDial;

impl Dial for TcpDial {
    #[expect(clippy::disallowed_methods, reason = "production's network")]
    fn dial(&self, address: Arc<str>) -> DialFuture {
        Box::pin(async move {
            let stream = TcpStream::connect(&*address).await?;
            prepare(&stream)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

/// What the kernel is to do with our bytes.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    // Bytes that weren't sent die with the connection: the kernel would go on trying to deliver
    // a request long after its sender counted it as lost.
    stream.set_zero_linger()?;
    let ms = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, ms)?)
}

/// Makes one cluster's connections.
pub(crate) struct Dialer {
    dial: Arc<dyn Dial>,
    tls: Option<Arc<Tls>>,
    sasl: Option<SaslSettings>,
    options: ConnectionOptions,
}

/// What references led to for one dial.
struct Prepared {
    tls: Option<Arc<rustls::ClientConfig>>,
    login: Option<Login>,
}

impl Dialer {
    pub(crate) fn way(&self) -> Arc<dyn Dial> {
        self.dial.clone()
    }

    pub fn new(config: &ClientConfig, dial: Arc<dyn Dial>, options: ConnectionOptions) -> Self {
        let tls = config.security.tls.clone().map(|settings| Arc::new(Tls::new(settings)));
        Self { dial, tls, sasl: config.security.sasl.clone(), options }
    }

    /// A connection that is ready for requests.
    ///
    /// # Errors
    /// [`Error::Config`] for a reference that leads nowhere, [`Error::Connect`], [`Error::Tls`],
    /// [`Error::Authentication`], and those of [`Connection::open`].
    pub async fn open(&self, address: Arc<str>) -> Result<Connection, Error> {
        let prepared = self.prepare().await?;
        let stream = self.connect(&address).await?;
        let over_tls = prepared.tls.is_some();
        let stream = match prepared.tls {
            Some(config) => tls::handshake(config, &address, stream).await?,
            None => stream,
        };
        let opened = Connection::open(stream, address, &self.options).await;
        let connection = opened.map_err(|error| if over_tls { error } else { maybe_tls(error) })?;
        if let Some(login) = &prepared.login {
            let lifetime = sasl::authenticate(&connection, login, self.dial.random()).await?;
            if let Some(lifetime) = lifetime {
                connection.end_after(share_of(lifetime, self.dial.random()));
            }
        }
        Ok(connection)
    }

    /// As whom brokers know this client by default: the user that logs in now, or nobody in particular. None: it
    /// shows a certificate, of which each broker makes a name by rules of its own.
    ///
    /// # Errors
    /// [`Error::Config`] for a reference that leads nowhere.
    pub async fn principal(&self) -> Result<Option<String>, Error> {
        let shows_certificate = self.tls.as_ref().is_some_and(|tls| tls.shows_certificate());
        match self.prepare().await?.login {
            Some(login) => Ok(Some(login.principal())),
            None => Ok((!shows_certificate).then(|| ANONYMOUS.to_owned())),
        }
    }

    async fn connect(&self, address: &Arc<str>) -> Result<BoxedStream, Error> {
        let failed = |reason: String| Error::Connect { address: address.to_string(), reason };
        match tokio::time::timeout(CONNECT_TIMEOUT, self.dial.dial(address.clone())).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {CONNECT_TIMEOUT:?}"))),
        }
    }

    /// Reads the secrets anew; on a thread that may block when files are among them.
    #[expect(
        clippy::disallowed_methods,
        reason = "only where secrets lie in files, as none do in simulation"
    )]
    async fn prepare(&self) -> Result<Prepared, Error> {
        let (tls, sasl) = (self.tls.clone(), self.sasl.clone());
        let reads_files =
            tls.as_ref().is_some_and(|t| t.reads_files()) || sasl.as_ref().is_some_and(|s| s.reads_files());
        let read = move || -> Result<Prepared, ConfigError> {
            Ok(Prepared {
                tls: tls.map(|tls| tls.prepare()).transpose()?,
                login: sasl.map(|sasl| Login::read(&sasl)).transpose()?,
            })
        };
        if !reads_files {
            return Ok(read()?);
        }
        let unread = |reason: String| ConfigError::new("security.protocol", reason);
        match tokio::time::timeout(READ_TIMEOUT, tokio::task::spawn_blocking(read)).await {
            Ok(Ok(prepared)) => Ok(prepared?),
            Ok(Err(_)) => Err(unread("reading its certificates and credentials was cut off".into()).into()),
            Err(_) => {
                let reason =
                    format!("its certificates and credentials couldn't be read within {READ_TIMEOUT:?}");
                Err(unread(reason).into())
            }
        }
    }
}

/// What a plaintext client sees of a listener that speaks TLS, when it isn't told outright.
fn maybe_tls(error: Error) -> Error {
    match error {
        Error::Closed { address, reason } => {
            let hint =
                "a listener that speaks TLS does that to a client that doesn't (see security.protocol)";
            Error::Closed { address, reason: format!("{reason}; {hint}") }
        }
        other => other,
    }
}

fn share_of(lifetime: Duration, random: [u8; NONCE_BYTES]) -> Duration {
    let (low, high) = (*LIFETIME_PERCENT.start() * 255, *LIFETIME_PERCENT.end() * 255);
    let share = low + (high - low) / 255 * u32::from(random[0]);
    lifetime.mul_f64(f64::from(share) / (255.0 * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a real socket")]
    async fn the_kernel_keeps_no_request_longer_than_its_sender_waits() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        prepare(&stream).expect("options");
        let ms = rustix::net::sockopt::tcp_user_timeout(&stream).expect("an option");
        assert_eq!(Duration::from_millis(ms.into()), UNACKNOWLEDGED_MAX);
        assert_eq!(stream.linger().expect("an option"), Some(Duration::ZERO), "none once it is closed");
        assert!(stream.nodelay().expect("an option"));
    }

    #[test]
    fn a_connection_ends_before_its_session_and_not_with_its_neighbours() {
        let hour = Duration::from_secs(3600);
        let minutes = |first: u8| share_of(hour, [first; NONCE_BYTES]).as_secs_f64() / 60.0;
        assert_eq!((minutes(0), minutes(255)), (51.0, 57.0));
        assert!(minutes(0) < minutes(1) && minutes(1) < minutes(2));
    }
}
