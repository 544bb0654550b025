//! The keys about security: which protocol, who we are, whom we trust.
//!
//! Contradictions are errors rather than one key silently winning: a forgotten
//! `security.protocol` must not send a password to nowhere or records over a readable line.

use std::collections::BTreeMap;

use super::{ConfigError, NO_REFERENCE, is_reference};
use crate::secret::Value;
use crate::{sasl, tls};

const SASL_KEYS: [&str; 4] = ["sasl.mechanism", "sasl.jaas.config", "sasl.username", "sasl.password"];
const TLS_KEYS: [&str; 10] = [
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
    "ssl.keystore.key",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.key.password",
];

/// How connections are made safe. PLAINTEXT is neither TLS nor SASL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    pub tls: Option<TlsSettings>,
    pub sasl: Option<SaslSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM certificates of the CAs that are trusted; the system's without.
    pub trust: Option<Value>,
    /// What we show to brokers that ask for a certificate.
    pub identity: Option<Identity>,
    /// False: any name is taken, the chain of trust is verified all the same.
    pub verify_host_name: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub key: Value,
    /// Leaf first. Without: in the file that holds the key.
    pub chain: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslSettings {
    pub mechanism: Mechanism,
    pub credentials: Credentials,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Jaas(Value),
    Pair { username: Value, password: Value },
}

impl Mechanism {
    /// As brokers and configurations spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let known = [Self::Plain, Self::ScramSha256, Self::ScramSha512];
        if let Some(mechanism) = known.into_iter().find(|m| m.name().eq_ignore_ascii_case(text)) {
            return Ok(mechanism);
        }
        let instead = "use SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN";
        Err(match text.to_ascii_uppercase().as_str() {
            "OAUTHBEARER" => format!("OAUTHBEARER isn't in this version yet; {instead}"),
            "GSSAPI" => format!("GSSAPI (Kerberos) isn't supported; {instead}"),
            "AWS_MSK_IAM" => format!("AWS_MSK_IAM is a vendor's mechanism and isn't supported; {instead}"),
            _ => format!("isn't a mechanism that lockstep knows; {instead}"),
        })
    }
}

impl Security {
    pub(super) fn from_configs(configs: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let keys = Keys(configs);
        let protocol = keys.word("security.protocol")?.unwrap_or("PLAINTEXT").to_ascii_uppercase();
        let (uses_tls, uses_sasl) = match &*protocol {
            "PLAINTEXT" => (false, false),
            "SSL" => (true, false),
            "SASL_PLAINTEXT" => (false, true),
            "SASL_SSL" => (true, true),
            _ => {
                let message = "must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL";
                return Err(ConfigError::new("security.protocol", message));
            }
        };
        let unused = |given: &[&'static str], what: &str, instead: &str| {
            let key = given.iter().find(|key| keys.get(key).is_some())?;
            let message = format!(
                "has no effect: security.protocol {protocol} uses no {what}; set that to {instead}, or \
                    leave this out"
            );
            Some(ConfigError::new(key, message))
        };
        let wrong = if !uses_sasl {
            unused(&SASL_KEYS, "SASL", if uses_tls { "SASL_SSL" } else { "SASL_SSL or SASL_PLAINTEXT" })
        } else {
            None
        };
        let wrong = wrong.or_else(|| {
            let instead = if uses_sasl { "SASL_SSL" } else { "SSL or SASL_SSL" };
            if uses_tls { None } else { unused(&TLS_KEYS, "TLS", instead) }
        });
        if let Some(error) = wrong {
            return Err(error);
        }
        let verify_host_name = verify_host_name(&keys)?;
        Ok(Self {
            tls: uses_tls.then(|| TlsSettings::from_keys(&keys, verify_host_name)).transpose()?,
            sasl: uses_sasl.then(|| SaslSettings::from_keys(&keys)).transpose()?,
        })
    }
}

/// `https`, or nothing as in Java and `none` as in librdkafka for no check.
fn verify_host_name(keys: &Keys<'_>) -> Result<bool, ConfigError> {
    let key = "ssl.endpoint.identification.algorithm";
    match keys.0.get(key).map(|text| text.trim().to_ascii_lowercase()).as_deref() {
        None | Some("https") => Ok(true),
        Some("" | "none") => Ok(false),
        Some(_) => Err(ConfigError::new(key, "must be https, or none (or empty) to take any host name")),
    }
}

impl TlsSettings {
    fn from_keys(keys: &Keys<'_>, verify_host_name: bool) -> Result<Self, ConfigError> {
        check_store(keys, "ssl.truststore.type", "ssl.truststore.location", &tls::convert_trust)?;
        check_store(keys, "ssl.keystore.type", "ssl.keystore.location", &tls::convert_identity)?;
        for key in ["ssl.truststore.password", "ssl.keystore.password"] {
            if keys.get(key).is_some() {
                return Err(ConfigError::new(key, "PEM has no store password; leave it out"));
            }
        }
        if keys.get("ssl.key.password").is_some() {
            return Err(ConfigError::new("ssl.key.password", tls::DECRYPT));
        }
        let trust = either(keys, "ssl.truststore.certificates", "ssl.truststore.location")?;
        let settings = Self { trust, identity: Identity::from_keys(keys)?, verify_host_name };
        tls::check_literals(&settings)?;
        Ok(settings)
    }
}

impl Identity {
    fn from_keys(keys: &Keys<'_>) -> Result<Option<Self>, ConfigError> {
        let (key, chain) = ("ssl.keystore.key", "ssl.keystore.certificate.chain");
        let key_value = either(keys, key, "ssl.keystore.location")?;
        let chain_value = keys.value(chain)?;
        match (key_value, chain_value) {
            (None, None) => Ok(None),
            (Some(file), None) if file.key() != key => Ok(Some(Self { key: file, chain: None })),
            (Some(value), Some(chain)) if value.key() == key => {
                Ok(Some(Self { key: value, chain: Some(chain) }))
            }
            (Some(file), Some(_)) => {
                let message = format!("the file of {} holds the chain too; leave one out", file.key());
                Err(ConfigError::new(chain, message))
            }
            (Some(_), None) => {
                Err(ConfigError::new(chain, format!("required with {key}: the certificate in PEM")))
            }
            (None, Some(_)) => {
                Err(ConfigError::new(key, format!("required with {chain}: its private key in PEM")))
            }
        }
    }
}

impl SaslSettings {
    fn from_keys(keys: &Keys<'_>) -> Result<Self, ConfigError> {
        let required = |key: &str, what: &str| ConfigError::new(key, format!("required: {what}"));
        let mechanism = keys.word("sasl.mechanism")?.ok_or_else(|| {
            required("sasl.mechanism", "SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN, as the listener offers")
        })?;
        let mechanism = Mechanism::parse(mechanism).map_err(|m| ConfigError::new("sasl.mechanism", m))?;
        let pair = (keys.value("sasl.username")?, keys.value("sasl.password")?);
        let credentials = match (keys.value("sasl.jaas.config")?, pair) {
            (Some(jaas), (None, None)) => Credentials::Jaas(jaas),
            (None, (Some(username), Some(password))) => Credentials::Pair { username, password },
            (Some(_), _) => {
                let message = "give either it or sasl.username and sasl.password";
                return Err(ConfigError::new("sasl.jaas.config", message));
            }
            (None, (Some(_), None)) => {
                return Err(required("sasl.password", "the password of sasl.username"));
            }
            (None, (None, Some(_))) => return Err(required("sasl.username", "the user of sasl.password")),
            (None, (None, None)) => {
                return Err(required("sasl.username", "with sasl.password, or a sasl.jaas.config line"));
            }
        };
        let settings = Self { mechanism, credentials };
        sasl::check_literals(&settings)?;
        Ok(settings)
    }
}

/// A PEM text or reference under one key, or a file's path under the other.
fn either(keys: &Keys<'_>, text: &'static str, location: &'static str) -> Result<Option<Value>, ConfigError> {
    match (keys.value(text)?, keys.get(location)) {
        (Some(_), Some(_)) => Err(ConfigError::new(location, format!("give either it or {text}"))),
        (Some(value), None) => Ok(Some(value)),
        // It is a reference to a file with or without saying so.
        (None, Some(path)) => {
            let path = path.trim();
            Value::at(location, path.strip_prefix("file:").unwrap_or(path)).map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// Refuses the Java store formats by their type or file name, with the command that converts them.
fn check_store(
    keys: &Keys<'_>,
    type_key: &'static str,
    location: &'static str,
    convert: &dyn Fn(tls::Store, &str) -> String,
) -> Result<(), ConfigError> {
    let path = keys.get(location).map(str::trim);
    let by_name = || {
        let name = path?.to_ascii_lowercase();
        match name.rsplit_once('.')?.1 {
            "jks" => Some((location, tls::Store::Jks)),
            "p12" | "pfx" | "pkcs12" => Some((location, tls::Store::Pkcs12)),
            _ => None,
        }
    };
    let found = match keys.word(type_key)?.map(str::to_ascii_uppercase).as_deref() {
        None => by_name(),
        Some("PEM") => None,
        Some("JKS") => Some((type_key, tls::Store::Jks)),
        Some("PKCS12") => Some((type_key, tls::Store::Pkcs12)),
        Some(_) => return Err(ConfigError::new(type_key, "must be PEM")),
    };
    match found {
        None => Ok(()),
        Some((key, store)) => Err(ConfigError::new(key, convert(store, path.unwrap_or("STORE")))),
    }
}

struct Keys<'a>(&'a BTreeMap<String, String>);

impl Keys<'_> {
    /// As given: blanks may belong to a password.
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|text| !text.trim().is_empty())
    }

    /// A value out of a small set, which must not be a reference.
    fn word(&self, key: &'static str) -> Result<Option<&str>, ConfigError> {
        match self.get(key).map(str::trim) {
            Some(text) if is_reference(text) => Err(ConfigError::new(key, NO_REFERENCE)),
            text => Ok(text),
        }
    }

    fn value(&self, key: &'static str) -> Result<Option<Value>, ConfigError> {
        let value = self.get(key).map(|text| {
            let trimmed = text.trim();
            Value::new(key, if is_reference(trimmed) { trimmed } else { text })
        });
        value.transpose()
    }
}

#[cfg(test)]
mod tests;
