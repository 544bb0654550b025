//! What may be shown of a configuration. A secret that was given is never shown again; a
//! reference to one is, because it says where the secret is, not what.

pub const HIDDEN: &str = "[hidden]";

const SENSITIVE: [&str; 2] = ["sasl.jaas.config", "ssl.keystore.key"];

pub fn is_sensitive(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("secret") || key.contains("password") || SENSITIVE.contains(&key.as_str())
}

/// The value as it may be shown.
pub fn shown(key: &str, value: &str) -> String {
    let is_reference = value.starts_with("file:") || value.starts_with("env:");
    if is_sensitive(key) && !is_reference { HIDDEN.to_owned() } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_references_are_not() {
        for (key, value, expected) in [
            ("sasl.password", "hunter2", HIDDEN),
            ("SASL.PASSWORD", "hunter2", HIDDEN),
            ("sasl.jaas.config", "… password=\"x\";", HIDDEN),
            ("ssl.key.password", "x", HIDDEN),
            ("ssl.keystore.key", "-----BEGIN PRIVATE KEY-----", HIDDEN),
            ("sasl.oauthbearer.client.secret", "x", HIDDEN),
            ("sasl.password", "env:WEST_PASSWORD", "env:WEST_PASSWORD"),
            ("ssl.keystore.key", "file:/run/secrets/key.pem", "file:/run/secrets/key.pem"),
            ("bootstrap.servers", "a:9092", "a:9092"),
        ] {
            assert_eq!(shown(key, value), expected, "{key}");
        }
    }
}
