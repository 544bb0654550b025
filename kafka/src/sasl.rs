//! SASL on a fresh connection: SaslHandshake, then one exchange of SaslAuthenticate.
//!
//! A session that the broker limits (`connections.max.reauth.ms`) isn't renewed: its connection is
//! closed before the broker would, and whoever needs one dials again and authenticates anew.
//!
//! The whole SCRAM side is ours, on `ring`'s primitives that TLS brings anyway: a SASL crate would
//! add dependencies, and take the nonce from a random source that a simulation can't seed.
//! Messages hold the mechanism and the broker's words, never user name or password.

mod scram;

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;

use crate::config::{ConfigError, Credentials, Mechanism, SaslSettings, parse_jaas};
use crate::connection::{Api, Connection};
use crate::error::{Error, ErrorCode};
use crate::secret::Secret;
use crate::shape;

use scram::{Hash, Scram};

/// Random bytes of a SCRAM nonce: 144 bits, 24 characters.
pub const NONCE_BYTES: usize = 18;

/// Rounds of hashing between two looks at other tasks: about 2 ms.
const ROUNDS_AT_ONCE: u32 = 4096;

/// Of a broker's message as much as a person reads.
const MESSAGE_CHARS_MAX: usize = 500;

/// Version 1 says that SaslAuthenticate follows, not bare tokens.
static HANDSHAKE: Api = Api {
    key: ApiKey::SaslHandshake as i16,
    name: "SaslHandshake",
    versions: &[(1, false, shape::SASL_HANDSHAKE_V1)],
};
/// Version 1 tells the session's lifetime. Brokers before 2.2 have only version 0.
static AUTHENTICATE: Api = Api {
    key: ApiKey::SaslAuthenticate as i16,
    name: "SaslAuthenticate",
    versions: &[(1, false, shape::SASL_AUTHENTICATE_V1), (0, false, shape::SASL_AUTHENTICATE_V0)],
};

/// Credentials as they are at one dial.
pub(crate) struct Login {
    mechanism: Mechanism,
    username: Secret,
    password: Secret,
}

impl Login {
    /// Reads what the settings lead to now. May block on the file system.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key.
    pub fn read(settings: &SaslSettings) -> Result<Self, ConfigError> {
        let mechanism = settings.mechanism;
        let (username, password, key) = match &settings.credentials {
            Credentials::Pair { username, password } => {
                (username.resolve_text()?, password.resolve_text()?, username.key())
            }
            Credentials::Jaas(value) => {
                let line = value.resolve_text()?;
                let line = String::from_utf8_lossy(line.reveal());
                let pair = parse_jaas(&line, mechanism).map_err(|m| ConfigError::new(value.key(), m))?;
                (pair.0, pair.1, value.key())
            }
        };
        if username.reveal().is_empty() || password.reveal().is_empty() {
            return Err(ConfigError::new(key, "user name and password must not be empty"));
        }
        // PLAIN separates the two by it; RFC 5802 forbids it too.
        if username.reveal().contains(&0) || password.reveal().contains(&0) {
            return Err(ConfigError::new(key, "user name and password must not contain a NUL character"));
        }
        Ok(Self { mechanism, username, password })
    }

    /// As brokers call whoever has logged in so, unless they have a rule of their own.
    pub fn principal(&self) -> String {
        format!("User:{}", String::from_utf8_lossy(self.username.reveal()))
    }
}

impl SaslSettings {
    /// Whether reading the credentials touches the file system.
    pub(crate) fn reads_files(&self) -> bool {
        match &self.credentials {
            Credentials::Jaas(value) => !value.is_literal(),
            Credentials::Pair { username, password } => !username.is_literal() || !password.is_literal(),
        }
    }
}

/// Checks what can be checked without opening a file or reading a variable.
///
/// # Errors
/// [`ConfigError`] naming the key.
pub(crate) fn check_literals(settings: &SaslSettings) -> Result<(), ConfigError> {
    if settings.reads_files() { Ok(()) } else { Login::read(settings).map(drop) }
}

/// Authenticates a connection that has just been opened. Returns how long the broker lets it
/// live, if it says so.
///
/// # Errors
/// [`Error::Authentication`] with the broker's reason, or ours when the broker can't prove that it
/// knows the password; what else may happen to a connection.
pub(crate) async fn authenticate(
    connection: &Connection,
    login: &Login,
    nonce: [u8; NONCE_BYTES],
) -> Result<Option<Duration>, Error> {
    let exchange = Exchange { connection, mechanism: login.mechanism };
    exchange.handshake().await?;
    let hash = match login.mechanism {
        Mechanism::Plain => {
            let token = [&[0], login.username.reveal(), &[0], login.password.reveal()].concat();
            return Ok(exchange.step(token).await?.1);
        }
        Mechanism::ScramSha256 => Hash::Sha256,
        Mechanism::ScramSha512 => Hash::Sha512,
    };
    let refused = |reason: String| exchange.failed(reason);
    let scram = Scram::new(hash, &login.username, &nonce);
    let (challenge, _) = exchange.step(scram.client_first()).await?;
    let mut salting = scram.challenged(&challenge, &login.password).map_err(refused)?;
    while !salting.run(ROUNDS_AT_ONCE) {
        tokio::task::yield_now().await;
    }
    let (token, proof) = salting.finish();
    let (last, lifetime) = exchange.step(token).await?;
    proof.check(&last).map_err(refused)?;
    Ok(lifetime)
}

struct Exchange<'a> {
    connection: &'a Connection,
    mechanism: Mechanism,
}

impl Exchange<'_> {
    fn failed(&self, reason: String) -> Error {
        let reason = format!("{}: {reason}", self.mechanism.name());
        Error::Authentication { address: self.connection.address().to_owned(), reason }
    }

    async fn handshake(&self) -> Result<(), Error> {
        let name = StrBytes::from_static_str(self.mechanism.name());
        let request = SaslHandshakeRequest::default().with_mechanism(name);
        let (response, _) = self.connection.call(&HANDSHAKE, &request).await?;
        Err(match ErrorCode::of(response.error_code) {
            None => return Ok(()),
            Some(ErrorCode::UNSUPPORTED_SASL_MECHANISM) => {
                let offered: Vec<&str> = response.mechanisms.iter().map(|m| m.as_str()).collect();
                let offered = shorten(&offered.join(", "));
                self.failed(format!("this listener doesn't offer it, but {offered}; see sasl.mechanism"))
            }
            Some(ErrorCode::ILLEGAL_SASL_STATE) => {
                self.failed("this listener takes no SASL; see security.protocol".into())
            }
            Some(code) => self.failed(code.to_string()),
        })
    }

    async fn step(&self, token: Vec<u8>) -> Result<(Bytes, Option<Duration>), Error> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(token.into());
        let (response, _) = self.connection.call(&AUTHENTICATE, &request).await?;
        if let Some(code) = ErrorCode::of(response.error_code) {
            let message = response.error_message.as_ref().map(|m| m.as_str()).filter(|m| !m.is_empty());
            return Err(self.failed(message.map_or_else(|| code.to_string(), shorten)));
        }
        let lifetime = u64::try_from(response.session_lifetime_ms).ok().filter(|ms| *ms > 0);
        Ok((response.auth_bytes, lifetime.map(Duration::from_millis)))
    }
}

fn shorten(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}
