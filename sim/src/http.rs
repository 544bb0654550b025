//! One HTTP/1.1 request over a connection of its own: a client that shares nothing with the server that it
//! talks to.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::net::TcpStream;

use crate::api::PORT;
use crate::requests::Request;

/// Above the longest list of a simulation's mirrors.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub retry_after_seconds: Option<u64>,
    /// Null when there is none.
    pub body: Value,
}

impl Answer {
    /// Of an answer that isn't a success.
    pub fn error(&self) -> (u64, &str) {
        let code = self.body["error_code"].as_u64().unwrap_or_default();
        (code, self.body["message"].as_str().unwrap_or_default())
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Lost {
    /// Nothing was sent.
    NoConnection(io::Error),
    /// Nobody knows what became of it.
    NoAnswer(io::Error),
}

/// # Errors
/// As the network has them, or what isn't an answer.
pub async fn ask(host: &str, request: &Request) -> Result<Answer, Lost> {
    let mut stream = TcpStream::connect((host, PORT)).await.map_err(Lost::NoConnection)?;
    let answered = async {
        stream.write_all(&written(host, request)).await?;
        let mut bytes = Vec::new();
        (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
        read(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no whole answer"))
    };
    answered.await.map_err(Lost::NoAnswer)
}

fn written(host: &str, request: &Request) -> Vec<u8> {
    let Request { method, target, body, .. } = request;
    let body = body.as_ref().map(Value::to_string).unwrap_or_default();
    let content = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}:{PORT}\r\nConnection: close\r\n{content}Content-Length: \
         {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// None when it is cut, or something else.
fn read(bytes: &[u8]) -> Option<Answer> {
    const END: &[u8] = b"\r\n\r\n";
    let end = bytes.windows(END.len()).position(|window| window == END)?;
    let (head, body) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + END.len()..]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let number = |name: &str| {
        let found = headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| value.parse::<u64>().ok())
    };
    if number("content-length").unwrap_or_default() != body.len() as u64 {
        return None;
    }
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).ok()? };
    Some(Answer { status, retry_after_seconds: number("retry-after"), body })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_whole_or_none() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 18\r\n\r\n{\"error_code\":503}";
        let whole = Answer { status: 503, retry_after_seconds: Some(1), body: json!({"error_code": 503}) };
        assert_eq!(read(text), Some(whole));
        for length in 0..text.len() {
            assert_eq!(read(&text[..length]), None, "{length}");
        }
        let empty = Answer { status: 204, retry_after_seconds: None, body: Value::Null };
        assert_eq!(read(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(empty));
    }
}
