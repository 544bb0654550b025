//! Certificates and keys out of PEM text, as it survives properties files, environment variables
//! and web forms: line ends may have become blanks or the two characters `\n`.
//!
//! Java's own store formats aren't read; messages hold the command that converts them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use crate::config::ConfigError;
use crate::secret::{Secret, Value};

pub const DECRYPT: &str = "an encrypted private key isn't read; decrypt it once with \
                           `openssl pkey -in KEY.pem -out plain.pem`, keep that file readable for this node \
                           only, and leave ssl.key.password out";

/// Formats of Java's key stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Jks,
    Pkcs12,
}

/// What to say about a trust store at `path`.
pub fn convert_trust(store: Store, path: &str) -> String {
    match store {
        Store::Jks => {
            format!("JKS isn't read; make PEM of it with `keytool -list -rfc -keystore {path} > ca.pem`")
        }
        Store::Pkcs12 => {
            format!("PKCS12 isn't read; make PEM of it with `openssl pkcs12 -in {path} -nokeys -out ca.pem`")
        }
    }
}

/// What to say about a key store at `path`.
pub fn convert_identity(store: Store, path: &str) -> String {
    match store {
        Store::Jks => format!(
            "JKS isn't read; make PEM of it with `keytool -importkeystore -srckeystore {path} -destkeystore \
             client.p12 -deststoretype PKCS12`, then `openssl pkcs12 -in client.p12 -nodes -out client.pem`"
        ),
        Store::Pkcs12 => {
            format!(
                "PKCS12 isn't read; make PEM of it with `openssl pkcs12 -in {path} -nodes -out client.pem`"
            )
        }
    }
}

/// All certificates of a value, in their order; at least one.
///
/// # Errors
/// [`ConfigError`] that says what the value is instead.
pub fn certificates(value: &Value, secret: &Secret) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let mut found = Vec::new();
    for (label, der) in sections(value, secret)? {
        match &*label {
            "CERTIFICATE" | "X509 CERTIFICATE" => found.push(CertificateDer::from(der)),
            _ => {}
        }
    }
    if found.is_empty() {
        let message = "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)";
        return Err(ConfigError::new(value.key(), message));
    }
    Ok(found)
}

/// The one private key of a value.
///
/// # Errors
/// [`ConfigError`] for none, several, or an encrypted one.
pub fn key(value: &Value, secret: &Secret) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let wrong = |message: &str| ConfigError::new(value.key(), message);
    let mut found = Vec::new();
    for (label, der) in sections(value, secret)? {
        match &*label {
            "PRIVATE KEY" => found.push(PrivatePkcs8KeyDer::from(der).into()),
            "RSA PRIVATE KEY" => found.push(PrivatePkcs1KeyDer::from(der).into()),
            "EC PRIVATE KEY" => found.push(PrivateSec1KeyDer::from(der).into()),
            "ENCRYPTED PRIVATE KEY" => return Err(wrong(DECRYPT)),
            _ => {}
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(key), true) => Ok(key),
        (Some(_), false) => Err(wrong("holds several private keys; leave one")),
        (None, _) => Err(wrong("holds no private key in PEM (-----BEGIN PRIVATE KEY-----)")),
    }
}

/// Labels and contents. Text around the sections is for people and skipped.
fn sections(value: &Value, secret: &Secret) -> Result<Vec<(String, Vec<u8>)>, ConfigError> {
    if let Some(message) = other_format(value, secret.reveal()) {
        return Err(ConfigError::new(value.key(), message));
    }
    let broken = || ConfigError::new(value.key(), "holds PEM that is cut off or isn't base64");
    let text = String::from_utf8_lossy(secret.reveal());
    let mut rest = &*text;
    let mut found = Vec::new();
    while let Some((_, section)) = rest.split_once("-----BEGIN ") {
        let (label, section) = section.split_once("-----").ok_or_else(broken)?;
        let (body, after) = section.split_once("-----END ").ok_or_else(broken)?;
        rest = after.strip_prefix(label).and_then(|r| r.strip_prefix("-----")).ok_or_else(broken)?;
        if body.contains("ENCRYPTED") {
            return Err(ConfigError::new(value.key(), DECRYPT));
        }
        let mut base64 = body.replace("\\n", "").replace("\\r", "");
        base64.retain(|c| !c.is_whitespace());
        found.push((label.to_owned(), STANDARD.decode(base64).map_err(|_| broken())?));
    }
    Ok(found)
}

/// Stores and bare DER are known by their first bytes.
fn other_format(value: &Value, bytes: &[u8]) -> Option<String> {
    let path = value.path().map_or("STORE".to_owned(), |path| path.display().to_string());
    let convert = if value.key().contains("keystore") { convert_identity } else { convert_trust };
    match bytes {
        // JKS, and its successor JCEKS.
        [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => Some(convert(Store::Jks, &path)),
        // A sequence of up to 64 KiB that begins with version 3.
        [0x30, 0x82, _, _, 0x02, 0x01, 0x03, ..] => Some(convert(Store::Pkcs12, &path)),
        [0x30, 0x82, ..] => Some(format!(
            "DER isn't read; make PEM of it with `openssl x509 -inform der -in {path} -out cert.pem` (a key: \
             `openssl pkey -inform der`)"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_that_are_not_pem_are_known_by_their_first_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store").display().to_string();
        for (bytes, key, message) in [
            (&[0xfe, 0xed, 0xfe, 0xed, 0][..], "ssl.truststore.location", convert_trust(Store::Jks, &path)),
            (&[0x30, 0x82, 9, 9, 2, 1, 3], "ssl.truststore.location", convert_trust(Store::Pkcs12, &path)),
            (&[0x30, 0x82, 9, 9, 2, 1, 3], "ssl.keystore.location", convert_identity(Store::Pkcs12, &path)),
            (
                &[0x30, 0x82, 9, 9, 0x30],
                "ssl.truststore.location",
                format!(
                    "DER isn't read; make PEM of it with `openssl x509 -inform der -in {path} -out \
                     cert.pem` (a key: \
                 `openssl pkey -inform der`)"
                ),
            ),
            (
                b"text",
                "ssl.truststore.location",
                "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)".into(),
            ),
            (
                b"-----BEGIN CERTIFICATE-----\nAAAA",
                "ssl.truststore.location",
                "holds PEM that is cut off or isn't base64".into(),
            ),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let value = Value::at(key, &path).unwrap();
            let error = certificates(&value, &value.resolve().unwrap()).unwrap_err();
            assert_eq!(error.to_string(), format!("{key}: {message}"));
        }
    }

    #[test]
    fn a_key_encrypted_the_old_way_is_known_too() {
        let text =
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----";
        let value = Value::new("ssl.keystore.key", text).unwrap();
        assert_eq!(key(&value, &value.resolve().unwrap()).unwrap_err().message, DECRYPT);
    }

    /// As it comes out of files, properties and web forms.
    fn pem(label: &str, der: &[u8], line_end: &str) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!(
            "-----BEGIN {label}-----{line_end}{}{line_end}-----END {label}-----{line_end}",
            lines.join(line_end)
        )
    }

    proptest! {
        #[test]
        fn what_was_put_into_pem_comes_out_of_it(
            ders in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..4),
            line_end in prop_oneof![Just("\n"), Just("\r\n"), Just(" "), Just("\\n"), Just("\\r\\n")],
            words in "[a-z =]{0,20}",
        ) {
            let certificates_text: String =
                ders.iter().map(|der| words.clone() + &pem("CERTIFICATE", der, line_end)).collect();
            let all = certificates_text + &pem("PRIVATE KEY", &ders[0], line_end);
            let value = Value::new("ssl.keystore.key", &all).unwrap();
            let secret = value.resolve().unwrap();
            let found = certificates(&value, &secret).unwrap();
            prop_assert_eq!(found.iter().map(|der| der.as_ref().to_vec()).collect::<Vec<_>>(), ders.clone());
            let found = key(&value, &secret).unwrap();
            prop_assert_eq!(found.secret_der(), &ders[0][..]);
        }

        #[test]
        fn rubbish_never_panics(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("-----BEGIN ".to_owned()),
                    Just("-----END ".to_owned()),
                    Just("CERTIFICATE-----".to_owned()),
                    Just("PRIVATE KEY-----".to_owned()),
                    Just("ENCRYPTED".to_owned()),
                    Just("AAAA".to_owned()),
                    "\\PC{0,10}",
                ],
                0..10,
            ),
            bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let value = Value::new("ssl.keystore.key", "-").unwrap();
            let texts = [parts.concat().into_bytes(), bytes];
            for text in texts {
                let secret = Secret::from(&*String::from_utf8_lossy(&text));
                let _ = certificates(&value, &secret);
                let _ = key(&value, &secret);
            }
        }
    }
}
