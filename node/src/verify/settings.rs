//! A cluster's Kafka client keys in librdkafka's words, with references followed on this machine.

use kafka::ClientConfig;
use kafka::config::{ConfigError, Credentials, Identity, SaslSettings, TlsSettings, parse_jaas};
use kafka::secret::{Secret, Value};

use super::pem;

/// librdkafka takes no longer `socket.timeout.ms`.
const SOCKET_TIMEOUT_MS_MAX: u128 = 300_000;

/// Keys and values for librdkafka, secrets among them: never to be shown.
pub type Properties = Vec<(&'static str, String)>;

/// # Errors
/// [`ConfigError`] naming the key whose reference leads nowhere or whose value can't be used.
pub fn librdkafka(config: &ClientConfig) -> Result<Properties, ConfigError> {
    let security = &config.security;
    let protocol = match (&security.tls, &security.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    let timeout_ms = config.request_timeout.as_millis().min(SOCKET_TIMEOUT_MS_MAX);
    let mut properties = vec![
        ("bootstrap.servers", config.bootstrap.join(",")),
        ("client.id", format!("{}-verify", config.client_id)),
        ("socket.timeout.ms", timeout_ms.to_string()),
        ("security.protocol", protocol.to_owned()),
    ];
    if let Some(tls) = &security.tls {
        add_tls(&mut properties, tls)?;
    }
    if let Some(sasl) = &security.sasl {
        add_sasl(&mut properties, sasl)?;
    }
    Ok(properties)
}

fn add_tls(properties: &mut Properties, tls: &TlsSettings) -> Result<(), ConfigError> {
    let algorithm = if tls.verify_host_name { "https" } else { "none" };
    properties.push(("ssl.endpoint.identification.algorithm", algorithm.to_owned()));
    properties.push(match &tls.trust {
        Some(trust) => ("ssl.ca.pem", certificates(trust)?),
        // The system's, wherever this system keeps them.
        None => ("ssl.ca.location", "probe".to_owned()),
    });
    if let Some(Identity { key, chain }) = &tls.identity {
        properties.push(("ssl.certificate.pem", certificates(chain.as_ref().unwrap_or(key))?));
        let pem = pem::select(text(&key.resolve_text()?), pem::is_key);
        properties.push(("ssl.key.pem", some(key, pem, "holds no unencrypted private key in PEM")?));
    }
    Ok(())
}

fn add_sasl(properties: &mut Properties, sasl: &SaslSettings) -> Result<(), ConfigError> {
    let (username, password) = match &sasl.credentials {
        Credentials::Pair { username, password } => (username.resolve_text()?, password.resolve_text()?),
        Credentials::Jaas(value) => parse_jaas(text(&value.resolve_text()?), sasl.mechanism)
            .map_err(|message| ConfigError { key: value.key().to_owned(), message })?,
    };
    properties.push(("sasl.mechanism", sasl.mechanism.name().to_owned()));
    properties.push(("sasl.username", text(&username).to_owned()));
    properties.push(("sasl.password", text(&password).to_owned()));
    Ok(())
}

fn certificates(value: &Value) -> Result<String, ConfigError> {
    let pem = pem::select(text(&value.resolve_text()?), pem::is_certificate);
    some(value, pem, "holds no certificate in PEM")
}

fn some(value: &Value, pem: String, message: &str) -> Result<String, ConfigError> {
    if pem.is_empty() {
        return Err(ConfigError { key: value.key().to_owned(), message: message.to_owned() });
    }
    Ok(pem)
}

/// Of a value that was resolved as text.
fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.reveal()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Result<BTreeMap<&'static str, String>, String> {
        let configs = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let config = ClientConfig::from_configs(&configs).expect("client keys");
        Ok(librdkafka(&config).map_err(|error| error.to_string())?.into_iter().collect())
    }

    #[test]
    fn a_plain_cluster_needs_its_address_alone() {
        let found = properties(&[("bootstrap.servers", "a:1, b:2")]).expect("properties");
        let shown: Vec<String> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            shown,
            [
                "bootstrap.servers=a:1,b:2",
                "client.id=lockstep-verify",
                "security.protocol=plaintext",
                "socket.timeout.ms=30000"
            ]
        );
    }

    #[test]
    fn a_login_is_followed_to_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let password = directory.path().join("password");
        std::fs::write(&password, "p=1;2\n").expect("written");
        let reference = format!("file:{}", password.display());
        let pairs = [
            ("bootstrap.servers", "a:1"),
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "bob"),
            ("sasl.password", &reference),
        ];
        let found = properties(&pairs).expect("properties");
        let login = ["security.protocol", "sasl.mechanism", "sasl.username", "sasl.password"];
        assert_eq!(login.map(|key| &*found[key]), ["sasl_plaintext", "SCRAM-SHA-256", "bob", "p=1;2"]);

        std::fs::remove_file(&password).expect("removed");
        let error = properties(&pairs).expect_err("no password");
        assert!(
            error.starts_with(&format!("sasl.password: no value from {}", password.display())),
            "{error}"
        );
    }

    #[test]
    fn a_jaas_line_is_read_as_the_node_reads_it() {
        let line = r#"org.apache.kafka.common.security.plain.PlainLoginModule required username="al" password="p\"w";"#;
        let pairs = [
            ("bootstrap.servers", "a:1"),
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.jaas.config", line),
        ];
        let found = properties(&pairs).expect("properties");
        assert_eq!((&*found["sasl.username"], &*found["sasl.password"]), ("al", "p\"w"));
    }

    #[test]
    fn one_file_may_hold_key_and_chain() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let certificate = "-----BEGIN CERTIFICATE-----\nCCCC\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nKKKK\n-----END PRIVATE KEY-----\n";
        std::fs::write(path("client.pem"), format!("{key}{certificate}")).expect("written");
        let ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(path("ca.pem"), ca).expect("written");
        let pairs = [
            ("bootstrap.servers", "a:1".to_owned()),
            ("security.protocol", "SSL".to_owned()),
            ("ssl.truststore.location", path("ca.pem")),
            ("ssl.keystore.location", path("client.pem")),
            ("ssl.endpoint.identification.algorithm", String::new()),
        ];
        let pairs = pairs.each_ref().map(|(key, value)| (*key, value.as_str()));
        let found = properties(&pairs).expect("properties");
        assert_eq!(found["security.protocol"], "ssl");
        assert_eq!(found["ssl.endpoint.identification.algorithm"], "none");
        assert_eq!(
            (&*found["ssl.ca.pem"], &*found["ssl.certificate.pem"], &*found["ssl.key.pem"]),
            (ca, certificate, key)
        );
        std::fs::write(path("client.pem"), certificate).expect("written");
        let error = properties(&pairs).expect_err("no key");
        assert_eq!(error, "ssl.keystore.location: holds no unencrypted private key in PEM");
    }

    #[test]
    fn without_a_truststore_the_systems_is_looked_for() {
        let found = properties(&[("bootstrap.servers", "a:1"), ("security.protocol", "SSL")]);
        let found = found.expect("properties");
        assert_eq!((&*found["ssl.ca.location"], found.get("ssl.ca.pem")), ("probe", None));
        assert_eq!(found["ssl.endpoint.identification.algorithm"], "https");
    }
}
