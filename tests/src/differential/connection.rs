//! One connection to one broker, for any request that the protocol crate can write. Like
//! [`wire::Connection`](crate::wire::Connection) it blocks and has time limits; unlike it a connection
//! that the broker ends is an answer, and it connects anew afterwards.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

const CLIENT_ID: &str = "lockstep-differential";
/// Nothing that is asked may wait longer than a second; a busy machine takes the rest.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A request as both ends get it.
#[derive(Clone, Debug)]
pub struct Call {
    pub api: ApiKey,
    pub version: i16,
    pub request: RequestKind,
}

/// What a broker does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Response(Box<ResponseKind>),
    /// None, as a request with `acks=0` asks for.
    Silence,
    /// It ends the connection.
    Closed,
    /// Bytes that aren't a response of this version.
    Unreadable(String),
}

#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    correlation: i32,
}

impl Connection {
    pub fn new(address: SocketAddr) -> Connection {
        Connection { address, stream: None, correlation: 0 }
    }

    /// Sends `call` and waits for what comes of it.
    pub fn ask(&mut self, call: &Call) -> Result<Answer> {
        let asked = self.exchange(call);
        if asked.is_err() {
            self.stream = None;
        }
        asked.with_context(|| format!("{:?} version {} to {}", call.api, call.version, self.address))
    }

    fn exchange(&mut self, call: &Call) -> Result<Answer> {
        let sent = self.send(call.api, call.version, &call.request)?;
        self.outcome(call, sent)
    }

    /// Sends `call`, whose answer waits for other calls; [`Connection::take`] waits for it.
    pub fn post(&mut self, call: &Call) -> Result<()> {
        let sent = self.send(call.api, call.version, &call.request)?;
        ensure!(
            sent,
            "{:?} version {}: the connection to {} has ended",
            call.api,
            call.version,
            self.address
        );
        Ok(())
    }

    /// What comes of a call that was posted.
    pub fn take(&mut self, call: &Call) -> Result<Answer> {
        let taken = self.outcome(call, true);
        if taken.is_err() {
            self.stream = None;
        }
        taken.with_context(|| format!("{:?} version {}, posted to {}", call.api, call.version, self.address))
    }

    fn outcome(&mut self, call: &Call, mut sent: bool) -> Result<Answer> {
        let silent = matches!(&call.request, RequestKind::Produce(produce) if produce.acks == 0);
        if silent && sent {
            // A broker handles the requests of a connection one by one: when the next one is answered,
            // this one never will be.
            let probe = RequestKind::ApiVersions(ApiVersionsRequest::default());
            sent = self.send(ApiKey::ApiVersions, 0, &probe)?;
        }
        let frame = if sent { self.receive()? } else { None };
        let Some(mut frame) = frame else {
            self.stream = None;
            return Ok(Answer::Closed);
        };
        ensure!(frame.len() >= 4, "an answer of {} bytes", frame.len());
        let answered = (&frame[..4]).get_i32();
        ensure!(answered == self.correlation, "answer {answered} to request {}", self.correlation);
        if silent {
            return Ok(Answer::Silence);
        }
        let whole = frame.clone();
        Ok(match decode(call.api, call.version, &mut frame) {
            Ok(response) if frame.is_empty() => Answer::Response(Box::new(response)),
            Ok(_) => Answer::Unreadable(format!("{} bytes behind its end of {whole:?}", frame.len())),
            Err(error) => Answer::Unreadable(format!("{error:#}: {whole:?}")),
        })
    }

    /// Whether the broker took it.
    fn send(&mut self, api: ApiKey, version: i16, request: &RequestKind) -> Result<bool> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
        let mut frame = BytesMut::from(&[0; 4][..]);
        header.encode(&mut frame, api.request_header_version(version))?;
        request.encode(&mut frame, version)?;
        let length = i32::try_from(frame.len() - 4)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(connect(self.address)?),
        };
        match stream.write_all(&frame) {
            Ok(()) => Ok(true),
            Err(error) if is_end(error.kind()) => Ok(false),
            Err(error) => Err(error).context("send"),
        }
    }

    /// The next frame; none when the broker ended the connection.
    fn receive(&mut self) -> Result<Option<Bytes>> {
        let stream = self.stream.as_mut().context("something was sent before")?;
        let mut length = [0; 4];
        if !read_or_end(stream, &mut length)? {
            return Ok(None);
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).context("an answer's length")?];
        let whole = read_or_end(stream, &mut frame)?;
        ensure!(whole, "the connection ended in the middle of an answer");
        Ok(Some(frame.into()))
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT).context("connect")?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).context("set the read timeout")?;
    stream.set_write_timeout(Some(ANSWER_LIMIT)).context("set the write timeout")?;
    Ok(stream)
}

fn decode(api: ApiKey, version: i16, frame: &mut Bytes) -> Result<ResponseKind> {
    ResponseHeader::decode(frame, api.response_header_version(version))?;
    ResponseKind::decode(api, frame, version)
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

fn read_or_end(stream: &mut TcpStream, into: &mut [u8]) -> Result<bool> {
    match stream.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if is_end(error.kind()) => Ok(false),
        Err(error) => Err(error).context("receive"),
    }
}
