//! TLS and SASL against servers in this process: who is trusted, what is told when something is
//! wrong, and that rotated secrets are used by the next connection.

#![allow(clippy::unwrap_used, reason = "a test ends at what it didn't expect")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kafka::client::TcpDial;
use kafka::connection::BoxedStream;
use kafka::{Client, ClientConfig, Error};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tests::secured::{Authority, Issued};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const MARKER: &str = "MaRkEr";

/// What a broker answers to SaslHandshake and SaslAuthenticate, as response bodies.
#[derive(Clone, Default)]
struct Sasl {
    handshake: Vec<u8>,
    authenticate: Vec<u8>,
}

struct Broker {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Broker {
    async fn start(tls: Option<TlsAcceptor>, sasl: Sasl) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let (tls, sasl) = (tls.clone(), sasl.clone());
                tokio::spawn(async move {
                    let stream: BoxedStream = match tls {
                        Some(acceptor) => Box::new(acceptor.accept(stream).await?),
                        None => Box::new(stream),
                    };
                    serve(stream, sasl).await
                });
            }
        });
        Self { port, connections }
    }

    fn client(&self, host: &str, pairs: &[(&str, &str)]) -> Client {
        let bootstrap = format!("{host}:{}", self.port);
        let mut configs: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        configs.insert("bootstrap.servers".into(), bootstrap);
        Client::new(ClientConfig::from_configs(&configs).unwrap(), Arc::new(TcpDial))
    }

    /// Connects once; the error is checked not to show a secret.
    async fn connect(&self, host: &str, pairs: &[(&str, &str)]) -> Result<(), Error> {
        let result = self.client(host, pairs).any_broker().await.map(drop);
        if let Err(error) = &result {
            assert!(!format!("{error} {error:?}").contains(MARKER), "{error:?}");
        }
        result
    }
}

async fn serve(mut stream: BoxedStream, sasl: Sasl) -> std::io::Result<()> {
    loop {
        let length = stream.read_i32().await?;
        let mut request = vec![0; length as usize];
        stream.read_exact(&mut request).await?;
        let body = match i16::from_be_bytes([request[0], request[1]]) {
            // SaslHandshake 1 and SaslAuthenticate 0 to 1.
            18 => vec![0, 0, 0, 0, 0, 2, 0, 17, 0, 0, 0, 1, 0, 36, 0, 0, 0, 1],
            17 => sasl.handshake.clone(),
            36 => sasl.authenticate.clone(),
            other => panic!("request {other} wasn't expected"),
        };
        stream.write_i32(body.len() as i32 + 4).await?;
        stream.write_all(&request[4..8]).await?;
        stream.write_all(&body).await?;
        stream.flush().await?;
    }
}

fn acceptor(issued: &Issued, clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

fn tls_reason(result: Result<(), Error>) -> String {
    match result {
        Err(Error::Tls { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_chain_that_is_trusted_under_the_right_name_is_taken() {
    let authority = Authority::new("CA").unwrap();
    let ca = authority.pem();
    let broker = Broker::start(
        Some(acceptor(&authority.issue("broker", &["localhost", "*.example", "10.0.0.1"]).unwrap(), None)),
        Sasl::default(),
    )
    .await;
    let trusted = [("security.protocol", "SSL"), ("ssl.truststore.certificates", &*ca)];
    broker.connect("localhost", &trusted).await.unwrap();

    let reason = tls_reason(broker.connect("127.0.0.1", &trusted).await);
    assert!(
        reason.starts_with(
            "the broker's certificate is for localhost, *.example, 10.0.0.1, not for '127.0.0.1'; "
        ),
        "{reason}"
    );

    let any_name = [trusted[0], trusted[1], ("ssl.endpoint.identification.algorithm", "")];
    broker.connect("127.0.0.1", &any_name).await.unwrap();
}

#[tokio::test]
async fn a_chain_that_is_not_trusted_is_refused_under_any_name() {
    let authority = Authority::new("CA").unwrap();
    let issued = authority.issue("broker", &["localhost", "127.0.0.1"]).unwrap();
    let broker = Broker::start(Some(acceptor(&issued, None)), Sasl::default()).await;
    for (other, expected) in [
        (
            Authority::new("another").unwrap(),
            "the broker's certificate isn't signed by a CA that is trusted; ",
        ),
        (
            Authority::new("CA").unwrap(),
            "the broker's certificate isn't signed by the CA that is trusted, only by one of",
        ),
    ] {
        for algorithm in ["https", "none"] {
            let other = other.pem();
            let keys = [
                ("security.protocol", "SSL"),
                ("ssl.truststore.certificates", &*other),
                ("ssl.endpoint.identification.algorithm", algorithm),
            ];
            let reason = tls_reason(broker.connect("localhost", &keys).await);
            assert!(reason.starts_with(expected), "{reason}");
        }
    }
    // The system's CAs don't know it either.
    let error = broker.connect("localhost", &[("security.protocol", "SSL")]).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("isn't signed by a CA") || text.contains("has no CA certificates"), "{text}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_it_is_named() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let issued = Issued { chain: made.cert.pem(), key: made.signing_key.serialize_pem() };
    let broker = Broker::start(Some(acceptor(&issued, None)), Sasl::default()).await;
    let keys = [("security.protocol", "SSL"), ("ssl.truststore.certificates", &*issued.chain)];
    broker.connect("localhost", &keys).await.unwrap();
}

#[tokio::test]
async fn the_broker_sees_who_we_are() {
    let (authority, strangers) = (Authority::new("CA").unwrap(), Authority::new("strangers").unwrap());
    let broker = acceptor(&authority.issue("broker", &["localhost"]).unwrap(), Some(&authority));
    let broker = Broker::start(Some(broker), Sasl::default()).await;
    let ca = authority.pem();
    let base = [("security.protocol", "SSL"), ("ssl.truststore.certificates", &*ca)];

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("client.pem").display().to_string();
    let ours = authority.issue("lockstep", &[]).unwrap();
    std::fs::write(&path, format!("a comment\n{}{}", ours.chain, ours.key)).unwrap();
    for identity in [
        &[("ssl.keystore.key", &*ours.key), ("ssl.keystore.certificate.chain", &*ours.chain)][..],
        &[("ssl.keystore.location", &*path)],
    ] {
        broker.connect("localhost", &[&base, identity].concat()).await.unwrap();
    }

    let reason = tls_reason(broker.connect("localhost", &base).await);
    assert!(reason.starts_with("the broker asks for a client certificate; give ssl.keystore"), "{reason}");
    let stranger = strangers.issue("stranger", &[]).unwrap();
    let identity =
        [("ssl.keystore.key", &*stranger.key), ("ssl.keystore.certificate.chain", &*stranger.chain)];
    let reason = tls_reason(broker.connect("localhost", &[&base[..], &identity].concat()).await);
    assert!(reason.starts_with("the broker refuses the client certificate"), "{reason}");
}

/// What a broker makes of a certificate isn't known here, and so isn't guessed.
#[tokio::test]
async fn a_client_knows_as_whom_it_logs_in_and_not_what_its_certificate_is_called() {
    let broker = Broker::start(None, Sasl::default()).await;
    let ours = Authority::new("ours").unwrap().issue("lockstep", &[]).unwrap();
    let certificate =
        [("ssl.keystore.key", ours.key.as_str()), ("ssl.keystore.certificate.chain", ours.chain.as_str())];
    let login = [("sasl.mechanism", "PLAIN"), ("sasl.username", "mirror"), ("sasl.password", "p")];
    let protocol = |name| [("security.protocol", name)];
    for (pairs, expected) in [
        (vec![], Some("User:ANONYMOUS")),
        (protocol("SSL").to_vec(), Some("User:ANONYMOUS")),
        ([&protocol("SSL")[..], &certificate].concat(), None),
        ([&protocol("SASL_PLAINTEXT")[..], &login].concat(), Some("User:mirror")),
        ([&protocol("SASL_SSL")[..], &login, &certificate].concat(), Some("User:mirror")),
    ] {
        let principal = broker.client("localhost", &pairs).principal().await.unwrap();
        assert_eq!(principal.as_deref(), expected, "{pairs:?}");
    }
}

#[tokio::test]
async fn a_rotated_certificate_is_used_by_the_next_connection() {
    let authority = Authority::new("CA").unwrap();
    let broker = acceptor(&authority.issue("broker", &["localhost"]).unwrap(), None);
    let broker = Broker::start(Some(broker), Sasl::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem").display().to_string();
    let client =
        broker.client("localhost", &[("security.protocol", "SSL"), ("ssl.truststore.location", &path)]);

    let error = client.any_broker().await.map(drop).unwrap_err();
    let expected =
        format!("ssl.truststore.location: no value from {path}: No such file or directory (os error 2)");
    assert_eq!(error.to_string(), expected);
    assert_eq!(broker.connections.load(Ordering::Relaxed), 0, "nothing is dialled without");

    std::fs::write(&path, Authority::new("another").unwrap().pem()).unwrap();
    assert!(matches!(client.any_broker().await, Err(Error::Tls { .. })));
    std::fs::write(&path, authority.pem()).unwrap();
    client.any_broker().await.unwrap();
}

#[tokio::test]
async fn speaking_past_each_other_is_told() {
    let authority = Authority::new("CA").unwrap();
    let tls = acceptor(&authority.issue("broker", &["localhost"]).unwrap(), None);
    let broker = Broker::start(Some(tls), Sasl::default()).await;
    let error = broker.connect("localhost", &[]).await.unwrap_err().to_string();
    assert!(error.contains("this listener speaks TLS; set security.protocol to SSL or SASL_SSL"), "{error}");

    for (greeting, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "the peer answered with something that isn't TLS"),
        (b"", "the peer closed the connection in the handshake; a listener that doesn't speak TLS does that"),
    ] {
        let port = greets_and_closes(greeting).await;
        let other = Broker { port, connections: Arc::default() };
        let keys = [("security.protocol", "SSL"), ("ssl.truststore.certificates", &*authority.pem())];
        let reason = tls_reason(other.connect("localhost", &keys).await);
        assert!(reason.starts_with(expected), "{reason}");
        let plain = other.connect("localhost", &[]).await.unwrap_err().to_string();
        let expected = if greeting.is_empty() { "a listener that speaks TLS" } else { "an HTTP server" };
        assert!(plain.contains(expected), "{plain}");
    }
}

/// Reads the first bytes of each connection, answers and closes.
async fn greets_and_closes(greeting: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(greeting).await;
        }
    });
    port
}

const HANDSHAKE_OK: [u8; 6] = [0; 6];
const PLAIN: [(&str, &str); 4] = [
    ("security.protocol", "SASL_PLAINTEXT"),
    ("sasl.mechanism", "PLAIN"),
    ("sasl.username", "u"),
    ("sasl.password", MARKER),
];

/// Error 58 with its message.
fn refusal(message: &str) -> Vec<u8> {
    let mut body = vec![0, 58];
    body.extend_from_slice(&(message.len() as i16).to_be_bytes());
    body.extend_from_slice(message.as_bytes());
    body.extend_from_slice(&[0; 12]);
    body
}

fn accepted(lifetime_ms: i64) -> Vec<u8> {
    let mut body = vec![0, 0, 0xff, 0xff, 0, 0, 0, 0];
    body.extend_from_slice(&lifetime_ms.to_be_bytes());
    body
}

#[tokio::test]
async fn a_refusal_carries_the_brokers_words_and_is_tried_once() {
    let one_mechanism = [&[0, 33, 0, 0, 0, 1, 0, 5][..], b"OTHER"].concat();
    for (sasl, expected) in [
        (Sasl { handshake: HANDSHAKE_OK.into(), authenticate: refusal("no such user") }, "no such user"),
        (Sasl { handshake: HANDSHAKE_OK.into(), authenticate: refusal("") }, "SaslAuthenticationFailed (58)"),
        (
            Sasl { handshake: one_mechanism, ..Sasl::default() },
            "this listener doesn't offer it, but OTHER; see sasl.mechanism",
        ),
        (
            Sasl { handshake: vec![0, 34, 0, 0, 0, 0], ..Sasl::default() },
            "this listener takes no SASL; see security.protocol",
        ),
    ] {
        let broker = Broker::start(None, sasl).await;
        let mut keys = PLAIN.to_vec();
        let twice = format!("localhost:{0},localhost", broker.port);
        let error = broker.connect(&twice, &keys).await.unwrap_err();
        assert!(matches!(error, Error::Authentication { .. }), "{error:?}");
        let expected = format!("authentication with localhost:{} failed: PLAIN: {expected}", broker.port);
        assert_eq!(error.to_string(), expected);
        assert_eq!(broker.connections.load(Ordering::Relaxed), 1, "no second broker is bothered");
        keys.clear();
    }
}

#[tokio::test]
async fn a_scram_broker_without_proof_is_refused() {
    // Answers a challenge with an empty message: PLAIN's success isn't SCRAM's.
    let sasl = Sasl { handshake: HANDSHAKE_OK.into(), authenticate: accepted(0) };
    let broker = Broker::start(None, sasl).await;
    let mut keys = PLAIN;
    keys[1].1 = "SCRAM-SHA-512";
    let error = broker.connect("localhost", &keys).await.unwrap_err();
    let expected = "failed: SCRAM-SHA-512: the broker's challenge is malformed";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[tokio::test]
async fn a_connection_is_closed_before_its_session_ends() {
    let lifetime = Duration::from_secs(1);
    let sasl = Sasl { handshake: HANDSHAKE_OK.into(), authenticate: accepted(lifetime.as_millis() as i64) };
    let broker = Broker::start(None, sasl).await;
    let client = broker.client("localhost", &PLAIN);
    let begun = Instant::now();
    let connection = client.any_broker().await.unwrap();
    let error = connection.wait_closed().await.to_string();
    assert!(error.ends_with("its SASL session is about to end"), "{error}");
    let lived = begun.elapsed();
    assert!(lived >= lifetime * 85 / 100 && lived < lifetime * 2, "{lived:?}");
    client.any_broker().await.unwrap();
    assert_eq!(broker.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_listener_that_wants_sasl_is_told_by_how_it_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        // Metadata 12 is all it knows.
        let body = [0, 0, 0, 0, 0, 1, 0, 3, 0, 12, 0, 12];
        stream.write_all(&[&[0, 0, 0, 16], &request[8..12], &body].concat()).await.unwrap();
        let _ = stream.read(&mut request).await.unwrap();
    });
    let broker = Broker { port, connections: Arc::default() };
    let error = broker.client("localhost", &[]).metadata(None).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("a listener that wants SASL does that to a client without it"), "{error}");
}
