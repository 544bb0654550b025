//! One connection: length-prefixed frames, non-flexible request headers, replies in order.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cursor::{Cursor, put_string};

const CLIENT_ID: &str = "lockstep-tests";
/// Above any answer the reader asks for (its fetches are limited to 8 MiB plus one batch).
const FRAME_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The kind of a request and the version we speak; all of them have non-flexible headers.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    pub name: &'static str,
    pub key: i16,
    pub version: i16,
}

/// A blocking connection to one broker.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    correlation: i32,
}

impl Connection {
    /// Connects; `limit` holds for connecting and for each later read and write.
    pub fn open(address: SocketAddr, limit: Duration) -> Result<Connection> {
        let stream =
            TcpStream::connect_timeout(&address, limit).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        stream.set_read_timeout(Some(limit)).context("set the read timeout")?;
        stream.set_write_timeout(Some(limit)).context("set the write timeout")?;
        Ok(Connection { stream, address, correlation: 0 })
    }

    /// Sends one request and returns the body of its answer.
    pub fn call(&mut self, api: Api, body: &[u8]) -> Result<Vec<u8>> {
        self.exchange(api, body).with_context(|| format!("{} to {}", api.name, self.address))
    }

    fn exchange(&mut self, api: Api, body: &[u8]) -> Result<Vec<u8>> {
        self.correlation += 1;
        let mut frame = vec![0; 4];
        frame.extend(api.key.to_be_bytes());
        frame.extend(api.version.to_be_bytes());
        frame.extend(self.correlation.to_be_bytes());
        put_string(&mut frame, Some(CLIENT_ID));
        frame.extend(body);
        let length = u32::try_from(frame.len() - 4).context("the request is too long")?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).context("send")?;

        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).context("receive")?;
        let length = u32::from_be_bytes(prefix) as usize;
        if length > FRAME_BYTES_MAX {
            bail!("an answer of {length} bytes, more than {FRAME_BYTES_MAX}");
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).context("receive the rest of the answer")?;
        let correlation = Cursor::new(&answer).i32()?;
        if correlation != self.correlation {
            bail!("answer {correlation} to request {}", self.correlation);
        }
        Ok(answer.split_off(4))
    }

    /// ApiVersions: the (key, lowest, highest) the broker speaks.
    pub fn api_versions(&mut self) -> Result<Vec<(i16, i16, i16)>> {
        let answer = self.call(Api { name: "ApiVersions", key: 18, version: 0 }, &[])?;
        let mut cursor = Cursor::new(&answer);
        let code = cursor.i16()?;
        if code != 0 {
            bail!("ApiVersions from {}: error {code}", self.address);
        }
        cursor.list(|cursor| Ok((cursor.i16()?, cursor.i16()?, cursor.i16()?)))
    }
}
