//! The seam between calls and the network: how byte streams to and from other nodes come about, and
//! chance. TLS and frames run on top of what these return.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A byte stream both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub type BoxedStream = Box<dyn Stream>;
pub type DialFuture = Pin<Box<dyn Future<Output = io::Result<BoxedStream>> + Send>>;
pub type AcceptFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send + 'a>>;

/// A stream that another node opened.
pub struct Accepted {
    pub stream: BoxedStream,
    /// Where it comes from: for logs.
    pub from: String,
}

pub trait Dial: Send + Sync {
    /// Opens a stream to `host:port`.
    fn dial(&self, address: Arc<str>) -> DialFuture;

    /// Spreads what would happen at once elsewhere. A simulation takes it from its seed.
    #[expect(clippy::disallowed_methods, reason = "production's source")]
    fn random(&self) -> u64 {
        rand::random()
    }
}

pub trait Listen: Send {
    fn accept(&mut self) -> AcceptFuture<'_>;
}

/// TCP.
pub struct TcpDial;

impl Dial for TcpDial {
    #[expect(clippy::disallowed_methods, reason = "production's network")]
    fn dial(&self, address: Arc<str>) -> DialFuture {
        Box::pin(async move {
            let stream = TcpStream::connect(&*address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

/// TCP.
pub struct TcpListen(pub TcpListener);

impl Listen for TcpListen {
    fn accept(&mut self) -> AcceptFuture<'_> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted { stream: Box::new(stream), from: from.to_string() })
        })
    }
}
