use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;
use crate::ClientConfig;

/// Stands in every place a secret can stand, and must appear in no message.
const MARKER: &str = "MaRkEr";

fn read(pairs: &[(&str, &str)]) -> Result<ClientConfig, String> {
    let mut configs: BTreeMap<String, String> =
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    configs.insert("bootstrap.servers".into(), "a:1".into());
    ClientConfig::from_configs(&configs).map_err(|e| e.to_string())
}

fn read_with(protocol: &str, pairs: &[(&str, &str)]) -> Result<ClientConfig, String> {
    let mut all = vec![("security.protocol", protocol)];
    all.extend(pairs);
    read(&all)
}

#[test]
fn without_keys_a_connection_is_plain() {
    assert_eq!(read(&[]).unwrap().security, Security::default());
    assert_eq!(read_with("plaintext", &[("sasl.mechanism", " ")]).unwrap().security, Security::default());
}

#[test]
fn every_protocol_and_mechanism_is_read() {
    let login = [("sasl.username", "u"), ("sasl.password", "p")];
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
        for (protocol, tls) in [("SASL_PLAINTEXT", false), ("SASL_SSL", true)] {
            let keys = [login[0], login[1], ("sasl.mechanism", mechanism.name())];
            let security = read_with(protocol, &keys).unwrap().security;
            assert_eq!((security.tls.is_some(), security.sasl.unwrap().mechanism), (tls, mechanism));
        }
    }
    let jaas = "a.PlainLoginModule required username=\"u\" password=\"p\";";
    assert!(read_with("SASL_PLAINTEXT", &[("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", jaas)]).is_ok());
}

#[test]
fn the_host_name_check_is_off_only_when_told() {
    let check = |value: &str| {
        read_with("SSL", &[("ssl.endpoint.identification.algorithm", value)])
            .map(|config| config.security.tls.unwrap().verify_host_name)
    };
    assert!(read_with("SSL", &[]).unwrap().security.tls.unwrap().verify_host_name);
    assert_eq!((check("https"), check("HTTPS")), (Ok(true), Ok(true)));
    assert_eq!((check(""), check(" "), check("none")), (Ok(false), Ok(false), Ok(false)));
    let message =
        "ssl.endpoint.identification.algorithm: must be https, or none (or empty) to take any host name";
    assert_eq!(check("ldaps").unwrap_err(), message);
}

#[test]
fn a_reference_is_neither_opened_nor_shown_as_changed() {
    let keys = [
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "env:LOCKSTEP_NO_SUCH_VARIABLE"),
        ("sasl.password", "file:/no/such/file"),
        ("ssl.truststore.location", "/no/such/ca.pem"),
        ("ssl.keystore.location", "file:/no/such/client.pem"),
    ];
    let config = read_with("SASL_SSL", &keys).unwrap();
    assert_eq!(config, read_with("SASL_SSL", &keys).unwrap());
    let mut changed = keys;
    changed[2].1 = "file:/another";
    assert_ne!(config, read_with("SASL_SSL", &changed).unwrap());
    let shown = format!("{config:?}");
    assert!(shown.contains("LOCKSTEP_NO_SUCH_VARIABLE") && shown.contains("/no/such/file"), "{shown}");
}

#[test]
fn a_password_keeps_its_blanks_and_is_compared() {
    let with = |password: &str| {
        read_with(
            "SASL_SSL",
            &[("sasl.mechanism", "PLAIN"), ("sasl.username", "u"), ("sasl.password", password)],
        )
    };
    assert_eq!(with("p").unwrap(), with("p").unwrap());
    assert_ne!(with("p").unwrap(), with("p ").unwrap());
}

#[test]
fn contradictions_name_the_key_and_the_way_out() {
    let unused = |protocol: &str, what: &str, instead: &str| {
        format!(
            "has no effect: security.protocol {protocol} uses no {what}; set that to {instead}, or \
                leave this out"
        )
    };
    let (user, password) = (("sasl.username", MARKER), ("sasl.password", MARKER));
    let plain = ("sasl.mechanism", "PLAIN");
    for (protocol, pairs, key, message) in [
        (
            "TLS",
            vec![],
            "security.protocol",
            "must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL".into(),
        ),
        ("env:P", vec![], "security.protocol", NO_REFERENCE.into()),
        (
            "PLAINTEXT",
            vec![password],
            "sasl.password",
            unused("PLAINTEXT", "SASL", "SASL_SSL or SASL_PLAINTEXT"),
        ),
        ("SSL", vec![plain], "sasl.mechanism", unused("SSL", "SASL", "SASL_SSL")),
        (
            "PLAINTEXT",
            vec![("ssl.keystore.key", MARKER)],
            "ssl.keystore.key",
            unused("PLAINTEXT", "TLS", "SSL or SASL_SSL"),
        ),
        (
            "SASL_PLAINTEXT",
            vec![("ssl.truststore.location", "/ca")],
            "ssl.truststore.location",
            unused("SASL_PLAINTEXT", "TLS", "SASL_SSL"),
        ),
        (
            "SASL_SSL",
            vec![user, password],
            "sasl.mechanism",
            "required: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN, as the listener offers".into(),
        ),
        (
            "SASL_SSL",
            vec![plain],
            "sasl.username",
            "required: with sasl.password, or a sasl.jaas.config line".into(),
        ),
        ("SASL_SSL", vec![plain, user], "sasl.password", "required: the password of sasl.username".into()),
        ("SASL_SSL", vec![plain, password], "sasl.username", "required: the user of sasl.password".into()),
        (
            "SASL_SSL",
            vec![plain, user, ("sasl.jaas.config", MARKER)],
            "sasl.jaas.config",
            "give either it or sasl.username and sasl.password".into(),
        ),
        (
            "SASL_SSL",
            vec![plain, ("sasl.jaas.config", MARKER)],
            "sasl.jaas.config",
            "its login module must be PlainLoginModule or ScramLoginModule".into(),
        ),
        (
            "SASL_SSL",
            vec![plain, user, ("sasl.password", "MaRkEr\0")],
            "sasl.username",
            "user name and password must not contain a NUL character".into(),
        ),
        (
            "SASL_SSL",
            vec![plain, user, ("sasl.password", "env:")],
            "sasl.password",
            "env: must be followed by a variable's name".into(),
        ),
        (
            "SASL_SSL",
            vec![plain, user, ("sasl.password", "file:secrets/p")],
            "sasl.password",
            "must be the absolute path of a file".into(),
        ),
        (
            "SSL",
            vec![("ssl.truststore.location", "ca.pem")],
            "ssl.truststore.location",
            "must be the absolute path of a file".into(),
        ),
        (
            "SSL",
            vec![("ssl.truststore.certificates", MARKER)],
            "ssl.truststore.certificates",
            "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)".into(),
        ),
        (
            "SSL",
            vec![("ssl.truststore.certificates", "env:CA"), ("ssl.truststore.location", "/ca")],
            "ssl.truststore.location",
            "give either it or ssl.truststore.certificates".into(),
        ),
        (
            "SSL",
            vec![("ssl.keystore.key", MARKER)],
            "ssl.keystore.certificate.chain",
            "required with ssl.keystore.key: the certificate in PEM".into(),
        ),
        (
            "SSL",
            vec![("ssl.keystore.certificate.chain", MARKER)],
            "ssl.keystore.key",
            "required with ssl.keystore.certificate.chain: its private key in PEM".into(),
        ),
        (
            "SSL",
            vec![("ssl.keystore.key", "env:K"), ("ssl.keystore.location", "/k")],
            "ssl.keystore.location",
            "give either it or ssl.keystore.key".into(),
        ),
        (
            "SSL",
            vec![("ssl.keystore.certificate.chain", "env:K"), ("ssl.keystore.location", "/k")],
            "ssl.keystore.certificate.chain",
            "the file of ssl.keystore.location holds the chain too; leave one out".into(),
        ),
        (
            "SSL",
            vec![("ssl.truststore.password", MARKER)],
            "ssl.truststore.password",
            "PEM has no store password; leave it out".into(),
        ),
        (
            "SSL",
            vec![("ssl.keystore.password", MARKER)],
            "ssl.keystore.password",
            "PEM has no store password; leave it out".into(),
        ),
        ("SSL", vec![("ssl.key.password", MARKER)], "ssl.key.password", tls::DECRYPT.into()),
        ("SSL", vec![("ssl.keystore.type", "BKS")], "ssl.keystore.type", "must be PEM".into()),
    ] {
        let error = read_with(protocol, &pairs).expect_err(&message);
        assert_eq!(error, format!("{key}: {message}"));
        assert!(!error.contains(MARKER), "{error}");
    }
}

#[test]
fn mechanisms_that_are_missing_are_refused_by_name() {
    for (mechanism, reason) in [
        ("OAUTHBEARER", "OAUTHBEARER isn't in this version yet"),
        ("gssapi", "GSSAPI (Kerberos) isn't supported"),
        ("AWS_MSK_IAM", "AWS_MSK_IAM is a vendor's mechanism and isn't supported"),
        ("EXTERNAL", "isn't a mechanism that lockstep knows"),
        ("env:MECHANISM", "must be written out"),
    ] {
        let error = read_with("SASL_SSL", &[("sasl.mechanism", mechanism)]).unwrap_err();
        assert!(error.starts_with(&format!("sasl.mechanism: {reason}")), "{error}");
    }
}

#[test]
fn java_stores_are_refused_with_the_command_that_converts_them() {
    for (pairs, message) in [
        (
            vec![("ssl.truststore.location", "/t.jks")],
            "ssl.truststore.location: JKS isn't read; make PEM of it with `keytool -list -rfc -keystore \
                /t.jks > ca.pem`",
        ),
        (
            vec![("ssl.truststore.location", "/t"), ("ssl.truststore.type", "PKCS12")],
            "ssl.truststore.type: PKCS12 isn't read; make PEM of it with `openssl pkcs12 -in /t -nokeys \
                -out ca.pem`",
        ),
        (
            vec![("ssl.keystore.location", "/k.P12"), ("ssl.keystore.password", MARKER)],
            "ssl.keystore.location: PKCS12 isn't read; make PEM of it with `openssl pkcs12 -in /k.P12 \
                -nodes -out client.pem`",
        ),
        (
            vec![("ssl.keystore.location", "/k"), ("ssl.keystore.type", "jks")],
            "ssl.keystore.type: JKS isn't read; make PEM of it with `keytool -importkeystore -srckeystore \
                /k -destkeystore client.p12 -deststoretype PKCS12`, then `openssl pkcs12 -in client.p12 \
                -nodes -out client.pem`",
        ),
    ] {
        assert_eq!(read_with("SSL", &pairs).unwrap_err(), message);
    }
    let pem = [("ssl.truststore.location", "/t.jks"), ("ssl.truststore.type", "PEM")];
    assert!(read_with("SSL", &pem).is_ok(), "a type that is given is believed");
}

#[test]
fn a_key_must_belong_to_its_certificate() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    let other = generate_simple_self_signed(vec!["a".to_owned()]).unwrap().signing_key;
    let with = |key: &str| {
        let chain = cert.pem();
        read_with("SSL", &[("ssl.keystore.key", key), ("ssl.keystore.certificate.chain", &chain)])
    };
    let good = signing_key.serialize_pem();
    assert!(with(&good).is_ok());
    assert!(with(&good.replace('\n', " ")).is_ok(), "line ends may have become blanks");
    assert!(with(&good.replace('\n', "\\n")).is_ok(), "or escapes");
    for (key, message) in [
        (
            other.serialize_pem(),
            "isn't the key of the first certificate in ssl.keystore.certificate.chain; that must be the \
                client's own, CAs follow it",
        ),
        (format!("{good}{good}"), "holds several private keys; leave one"),
        (good[..good.len() - 40].to_owned(), "holds PEM that is cut off or isn't base64"),
        (good.replace("PRIVATE", "ENCRYPTED PRIVATE"), tls::DECRYPT),
        (cert.pem(), "holds no private key in PEM (-----BEGIN PRIVATE KEY-----)"),
    ] {
        assert_eq!(with(&key).unwrap_err(), format!("ssl.keystore.key: {message}"));
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    let (chain, key) = (cert.pem(), signing_key.serialize_pem());
    let jaas = format!("a.PlainLoginModule required username=\"{MARKER}\" password=\"{MARKER}\";");
    let tls = [("ssl.keystore.key", &*key), ("ssl.keystore.certificate.chain", &*chain)];
    let pair = [("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", MARKER), ("sasl.password", MARKER)];
    for login in [&pair[..], &[("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", &*jaas)]] {
        let config = read_with("SASL_SSL", &[&tls[..], login].concat()).unwrap();
        let shown = format!("{config:?} {config:#?}");
        assert!(!shown.contains(MARKER) && shown.contains("[hidden]"), "{shown}");
        let body = key.lines().nth(1).unwrap();
        assert!(!shown.contains(body) && !shown.contains(&format!("{:?}", MARKER.as_bytes())), "{shown}");
    }
}
