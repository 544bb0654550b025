//! The Kafka protocol as the simulation's own clients speak it: one request at a time on a connection,
//! every answer awaited for so long and no longer. Shares no code with the product's client.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::net::TcpStream;

use crate::clusters::BROKER_PORT;

/// Longer than any way there and back; a broker that waits for its followers is given up.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// A connection to one broker. After an error it is of no use any more.
pub struct Wire {
    stream: TcpStream,
    client: &'static str,
    sent: i32,
}

impl Wire {
    /// # Errors
    /// When nobody listens, or answers in time.
    pub async fn connect(host: &str, client: &'static str) -> io::Result<Self> {
        let address = format!("{host}:{BROKER_PORT}");
        let stream = tokio::time::timeout(ANSWER_WAIT, TcpStream::connect(address)).await??;
        Ok(Self { stream, client, sent: 0 })
    }

    /// # Errors
    /// When no answer comes, or not in time. The request may have taken effect all the same.
    pub async fn call<Q: Request>(&mut self, version: i16, request: &Q) -> io::Result<Q::Response> {
        tokio::time::timeout(ANSWER_WAIT, self.exchange(version, request)).await?
    }

    async fn exchange<Q: Request>(&mut self, version: i16, request: &Q) -> io::Result<Q::Response> {
        self.sent += 1;
        let api = ApiKey::try_from(Q::KEY).map_err(|()| io::ErrorKind::InvalidInput)?;
        let mut frame = BytesMut::from(&[0; 4][..]);
        let header = RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(StrBytes::from_static_str(self.client)));
        header.encode(&mut frame, api.request_header_version(version)).map_err(io::Error::other)?;
        request.encode(&mut frame, version).map_err(io::Error::other)?;
        let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await?;
        let length = self.stream.read_u32().await?;
        let mut answer = vec![0; length as usize];
        self.stream.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, Q::Response::header_version(version));
        if header.map_err(io::Error::other)?.correlation_id != self.sent {
            return Err(io::Error::other("an answer to another request"));
        }
        Q::Response::decode(&mut answer, version).map_err(io::Error::other)
    }
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
