//! Kafka client keys, as users write them, to what the client needs.
//!
//! Errors name the key and the fix and never repeat a value that may be a secret.
//!
//! What is checked when: [`ClientConfig::from_configs`] checks everything that stands in the
//! configuration itself, down to whether a key belongs to its certificate. It opens no file and
//! reads no variable: the node that checks may not be the one that dials. References
//! (`file:PATH`, `env:NAME`) and `.location` files are read and checked at each dial.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod jaas;
mod security;

pub use jaas::parse as parse_jaas;
pub use security::{Credentials, Identity, Mechanism, SaslSettings, Security, TlsSettings};

/// What the Java client waits for a response.
const REQUEST_TIMEOUT_DEFAULT_MS: u64 = 30_000;
/// Shorter would fail healthy brokers under load.
const REQUEST_TIMEOUT_MIN_MS: u64 = 1_000;
const REQUEST_TIMEOUT_MAX_MS: u64 = 600_000;
const CLIENT_ID_DEFAULT: &str = "lockstep";

/// How to reach one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// `host:port`, at least one.
    pub bootstrap: Vec<Arc<str>>,
    pub client_id: Arc<str>,
    pub request_timeout: Duration,
    pub security: Security,
}

/// A key that can't be used as given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    pub key: String,
    pub message: String,
}

impl ConfigError {
    pub(crate) fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: key.to_owned(), message: message.into() }
    }
}

impl ClientConfig {
    /// Reads the client keys among `configs`; other keys are the caller's.
    ///
    /// # Errors
    /// [`ConfigError`] for a missing `bootstrap.servers` and for the first key that is wrong.
    pub fn from_configs(configs: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let get = |key: &str| configs.get(key).map(|v| v.trim()).filter(|v| !v.is_empty());
        for key in ["bootstrap.servers", "client.id", "request.timeout.ms"] {
            if get(key).is_some_and(is_reference) {
                return Err(ConfigError::new(key, NO_REFERENCE));
            }
        }
        let bootstrap = get("bootstrap.servers")
            .ok_or_else(|| {
                ConfigError::new("bootstrap.servers", "required: host:port, or several separated by commas")
            })?
            .split(',')
            .map(|entry| parse_host_port(entry.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        let request_timeout_ms = match get("request.timeout.ms") {
            None => REQUEST_TIMEOUT_DEFAULT_MS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|ms| (REQUEST_TIMEOUT_MIN_MS..=REQUEST_TIMEOUT_MAX_MS).contains(ms))
                .ok_or_else(|| {
                    let range = format!("{REQUEST_TIMEOUT_MIN_MS} to {REQUEST_TIMEOUT_MAX_MS}");
                    ConfigError::new(
                        "request.timeout.ms",
                        format!("must be a number of milliseconds, {range}"),
                    )
                })?,
        };
        Ok(Self {
            bootstrap,
            client_id: get("client.id").unwrap_or(CLIENT_ID_DEFAULT).into(),
            request_timeout: Duration::from_millis(request_timeout_ms),
            security: Security::from_configs(configs)?,
        })
    }
}

/// Changes of these are seen by comparing configurations, which references would hide.
const NO_REFERENCE: &str = "must be written out; file: and env: are for credentials and certificates";

fn is_reference(text: &str) -> bool {
    text.starts_with("file:") || text.starts_with("env:")
}

fn parse_host_port(entry: &str) -> Result<Arc<str>, ConfigError> {
    let wrong = || ConfigError::new("bootstrap.servers", format!("'{entry}' is not host:port"));
    let (host, port) = entry.rsplit_once(':').ok_or_else(wrong)?;
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    if host.is_empty()
        || bare_ipv6
        || port.parse::<u16>().is_ok_and(|p| p == 0)
        || port.parse::<u16>().is_err()
    {
        return Err(wrong());
    }
    Ok(entry.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<ClientConfig, String> {
        let configs = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        ClientConfig::from_configs(&configs).map_err(|e| e.to_string())
    }

    #[test]
    fn a_bootstrap_list_and_a_timeout_are_read() {
        let config =
            read(&[("bootstrap.servers", "a:9092, [::1]:9093"), ("request.timeout.ms", "5000")]).expect("ok");
        assert_eq!(config.bootstrap, ["a:9092".into(), "[::1]:9093".into()]);
        assert_eq!(config.request_timeout, Duration::from_secs(5));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_way_out() {
        for (pairs, message) in [
            (vec![], "bootstrap.servers: required: host:port, or several separated by commas"),
            (vec![("bootstrap.servers", "a")], "bootstrap.servers: 'a' is not host:port"),
            (vec![("bootstrap.servers", "a:0")], "bootstrap.servers: 'a:0' is not host:port"),
            (vec![("bootstrap.servers", "::1:9092")], "bootstrap.servers: '::1:9092' is not host:port"),
            (
                vec![("bootstrap.servers", "a:1"), ("request.timeout.ms", "5s")],
                "request.timeout.ms: must be a number of milliseconds, 1000 to 600000",
            ),
            (
                vec![("bootstrap.servers", "env:BROKERS")],
                "bootstrap.servers: must be written out; file: and env: are for credentials and certificates",
            ),
        ] {
            assert_eq!(read(&pairs).expect_err("wrong"), message);
        }
    }
}
