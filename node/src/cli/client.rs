//! Calls to the API of the first node that can be reached.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Agent;

use super::failure::Failure;
use crate::api::types::ErrorBody;

/// Where a node listens unless told otherwise.
pub const URL_DEFAULT: &str = "http://127.0.0.1:7780";

/// A node that doesn't accept by then is taken for unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longer than a node waits for clusters and for a Raft leader, so that its reason arrives.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Far above the largest page.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

pub struct Client {
    agent: Agent,
    urls: Vec<String>,
}

enum Method {
    Get,
    Post(Value),
    Put(Value),
    Patch(Value),
    Delete,
}

impl Client {
    pub fn new(urls: &[String]) -> Self {
        Self::within(urls, CALL_LIMIT)
    }

    /// A client whose calls take no longer than `limit`.
    pub fn within(urls: &[String], limit: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_global(Some(limit))
            .http_status_as_error(false)
            // A node is named, not looked for: no proxy comes between.
            .proxy(None)
            .user_agent(concat!("lockstep/", env!("CARGO_PKG_VERSION")))
            .build();
        let given = urls.iter().map(|url| url.trim()).filter(|url| !url.is_empty());
        let mut urls: Vec<String> = given.map(with_scheme).collect();
        if urls.is_empty() {
            // The variable is there and empty.
            urls.push(URL_DEFAULT.to_owned());
        }
        Self { agent: config.into(), urls }
    }

    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(&Method::Get, path)
    }

    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        self.call(&Method::Post(json(body)?), path)
    }

    pub fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        self.call(&Method::Put(json(body)?), path)
    }

    pub fn patch(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        self.call(&Method::Patch(json(body)?), path)
    }

    pub fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.call(&Method::Delete, path)
    }

    /// Every row of a list, over all its pages.
    pub fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        self.first(path, usize::MAX)
    }

    /// So many rows of a list, at most.
    pub fn first(&self, path: &str, rows_max: usize) -> Result<Vec<Value>, Failure> {
        let mut rows = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next.filter(|_| rows.len() < rows_max) {
            let mut page = self.get(&path)?;
            match page["data"].take() {
                Value::Array(data) => rows.extend(data),
                _ => return Err(Failure::new(format!("the node's answer to {path} is not a list"))),
            }
            next = page["metadata"]["next"].as_str().map(str::to_owned);
        }
        rows.truncate(rows_max);
        Ok(rows)
    }

    fn call(&self, method: &Method, path: &str) -> Result<Value, Failure> {
        let mut reasons = Vec::new();
        for url in &self.urls {
            if !url.starts_with("http://") {
                return Err(Failure::usage(format!("--url {url}: this version speaks http only")));
            }
            let target = format!("{url}{path}");
            let answer = match method {
                Method::Get => self.agent.get(&target).call(),
                Method::Post(body) => self.agent.post(&target).send_json(body),
                Method::Put(body) => self.agent.put(&target).send_json(body),
                Method::Patch(body) => self.agent.patch(&target).send_json(body),
                Method::Delete => self.agent.delete(&target).call(),
            };
            match answer {
                Ok(answer) => return read(answer),
                // Nothing was sent: the next node may be asked.
                Err(error) if is_unreachable(&error) => reasons.push(format!("{url}: {error}")),
                Err(error) => {
                    let failure = Failure::new(format!("{target}: {error}"));
                    return Err(match method {
                        Method::Get => failure,
                        _ => failure.hint("it may have been done all the same: look before trying again"),
                    });
                }
            }
        }
        Err(Failure::new(format!("no node can be reached: {}", reasons.join("; "))).hint(
            "start one with 'lockstep server --data-dir DIR --bootstrap', or name one with --url or LOCKSTEP_URL",
        ))
    }
}

fn json(body: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(body).map_err(|e| Failure::new(format!("can't write JSON: {e}")))
}

fn with_scheme(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

fn is_unreachable(error: &ureq::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => true,
        ureq::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
        ),
        _ => false,
    }
}

fn read(answer: ureq::http::Response<ureq::Body>) -> Result<Value, Failure> {
    let (parts, mut body) = answer.into_parts();
    let text = body.with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let text = text.map_err(|e| Failure::new(format!("the node's answer can't be read: {e}")))?;
    if parts.status.is_success() {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_str(&text)
            .map_err(|e| Failure::new(format!("the node's answer is not JSON: {e}")));
    }
    match serde_json::from_str::<ErrorBody>(&text) {
        Ok(error) => {
            let failure = Failure::new(error.message);
            Err(match hint(error.error_code) {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
        Err(_) => Err(Failure::new(format!("the answer is {}; is this a lockstep node?", parts.status))),
    }
}

fn hint(code: u32) -> Option<&'static str> {
    use crate::api::error;
    Some(match code {
        error::NO_LINK => "'lockstep link list' shows the links there are",
        // Of the source's, or of a mirror: the message says which.
        error::NO_TOPIC => "check the name; 'lockstep mirror list' shows the topics that are mirrored",
        error::STILL_STOPPING => "repeat the command: it goes on from where it stands",
        error::EXISTS => "describe shows what is there; choose another name or delete it first",
        error::IN_DOUBT => "look first: describe shows what is there; 'lockstep status' shows the fleet",
        503 => "this usually passes: try again in a moment; 'lockstep status' shows the fleet",
        _ => return None,
    })
}

/// A row of an answer, as its type.
pub fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value).map_err(|e| {
        Failure::new(format!("the node's answer is not what this version of the CLI knows: {e}"))
    })
}

pub fn typed_all<T: DeserializeOwned>(values: &[Value]) -> Result<Vec<T>, Failure> {
    values.iter().map(typed).collect()
}

/// One part of a path or query, whatever it holds.
pub fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
