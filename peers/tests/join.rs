//! Joining: who proves what to whom, and what a wrong one learns.

mod support;
#[path = "support/tls.rs"]
mod tls_support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use catalog::NodeId;
use catalog::command::NodeDescription;
use catalog::fleet::Authority;
use peers::dial::{BoxedStream, Dial, DialFuture, TcpDial, TcpListen};
use peers::identity::{Identity, NodeKey};
use peers::join::{AdmitFuture, Admitted, Channel, Gate, JoinError, JoinRequest, Joiner, join};
use peers::tls::Material;
use peers::{Call, CallError, Security, Service, Tls, Token, Transport, authority, transport};
use support::{A, B, Member, Net, SECOND, Spec, book, echo, fleet};
use tls_support::{Anyone, der, found, identity, now_ms, secured, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Lets in whoever knows a secret, but for one node.
struct TestGate {
    authority: Option<Arc<Authority>>,
    secrets: BTreeMap<Arc<str>, Arc<[u8]>>,
    asked: Mutex<Vec<JoinRequest>>,
}

const UNWELCOME: NodeId = NodeId(0xbad);

impl TestGate {
    fn new(authority: Option<&Arc<Authority>>, tokens: &[&Token]) -> Arc<Self> {
        let secrets = tokens.iter().map(|token| (token.id.clone(), token.secret.clone())).collect();
        Arc::new(Self { authority: authority.cloned(), secrets, asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<JoinRequest> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl Gate for TestGate {
    fn secret(&self, token: &str) -> Option<Arc<[u8]>> {
        self.secrets.get(token).cloned()
    }

    fn admit(&self, request: JoinRequest) -> AdmitFuture {
        self.asked.lock().expect("not poisoned").push(request.clone());
        let answer = if request.node == UNWELCOME {
            Err("a node named 'bad' is a member already".into())
        } else {
            let signed = |authority: &Arc<Authority>| {
                let signing = std::slice::from_ref(&**authority);
                authority::sign(signing, &fleet(), request.node, &request.public_key, now_ms())
                    .expect("signed")
            };
            Ok(Admitted {
                fleet: fleet(),
                certificate: self.authority.as_ref().map(signed),
                authorities: self.authority.iter().map(|authority| authority.certificate.clone()).collect(),
                members: vec![(A, "a:1".into())],
            })
        };
        Box::pin(async move { answer })
    }
}

fn token() -> Token {
    Token::of([1; 8], [2; 32])
}

fn key() -> Arc<NodeKey> {
    let directory = tempfile::tempdir().expect("a directory");
    Arc::new(NodeKey::open_or_create(directory.path()).expect("a key"))
}

fn joiner(node: NodeId) -> Joiner {
    let description = NodeDescription {
        name: "new".into(),
        address: Some("b:1".into()),
        level: 2,
        version: "0.1.0".into(),
    };
    Joiner { node, description, key: Some(key()), channel: Channel::Tls }
}

fn member(net: &Net, authority: &Arc<Authority>, gate: &Arc<TestGate>) -> Member {
    let mut a = Spec::new(net, A, "a:1");
    a.security = secured(authority, &fleet(), A);
    a.gate = Some(gate.clone());
    a.start()
}

async fn try_join(net: &Net, token: &Token, node: NodeId) -> Result<Admitted, JoinError> {
    join(net, &"a:1".into(), token, &joiner(node)).await
}

fn refusal(result: Result<Admitted, JoinError>) -> String {
    match result {
        Err(JoinError::Refused { why, .. }) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_knows_the_secret_gets_in_and_talks_with_what_it_got() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let gate = TestGate::new(Some(&authority), &[&token()]);
    let a = member(&net, &authority, &gate);
    let who = joiner(B);
    let admitted = join(&net, &"a:1".into(), &token(), &who).await.expect("admitted");
    let asked = gate.asked().pop().expect("asked");
    assert_eq!((asked.node, asked.description, asked.token), (B, who.description, Some(token().id)));
    assert_eq!((&admitted.fleet, &admitted.members), (&fleet(), &vec![(A, "a:1".into())]));

    let key = Arc::into_inner(who.key.expect("a key")).expect("the only one");
    let certificate = der(&admitted.certificate.expect("signed"));
    let authorities = admitted.authorities.iter().map(|authority| der(authority)).collect();
    let identity = Identity::of(key, certificate, authorities).expect("an identity");
    assert_eq!((identity.node, &identity.fleet), (B, &fleet()));
    let mut b = Spec::new(&net, B, "b:1");
    b.security = Security::Tls(Tls::new(Material::of_fleet(&identity)).expect("usable"));
    let b = b.start();
    assert_eq!(b.call(A, "x").await.expect("answered"), "x");
    assert_eq!(a.call(B, "x").await.expect("answered"), "x");
}

#[tokio::test(start_paused = true)]
async fn the_secret_that_all_nodes_were_given_opens_too() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let shared = Token::shared(b"correct horse battery staple\n").expect("long enough");
    let gate = TestGate::new(Some(&authority), &[&shared]);
    let _a = member(&net, &authority, &gate);
    try_join(&net, &shared, B).await.expect("admitted");
    assert_eq!(gate.asked()[0].token, None);
    let other = Token::shared(b"incorrect horse battery").expect("long enough");
    assert_eq!(
        refusal(try_join(&net, &other, B).await),
        "the join secret isn't the one that this fleet's nodes were given"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_is_refused_in_words_and_nothing_is_asked_of_the_gate() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let gate = TestGate::new(Some(&authority), &[&token()]);
    let _a = member(&net, &authority, &gate);
    let wrong_secret = Token::of([1; 8], [3; 32]);
    assert_eq!(
        refusal(try_join(&net, &wrong_secret, B).await),
        "the join token's secret is wrong: was it copied whole?"
    );
    assert_eq!(
        refusal(try_join(&net, &Token::of([9; 8], [2; 32]), B).await),
        "the join token isn't known here, was used, or has expired; make a new one with 'lockstep node token'"
    );
    let shared = Token::shared(b"correct horse battery").expect("long enough");
    assert!(refusal(try_join(&net, &shared, B).await).contains("--join-token-file"));
    assert_eq!(gate.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn after_some_wrong_tokens_the_right_one_waits_too() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let gate = TestGate::new(Some(&authority), &[&token()]);
    let _a = member(&net, &authority, &gate);
    for _ in 0..10 {
        try_join(&net, &Token::of([1; 8], [3; 32]), B).await.expect_err("wrong");
    }
    let words = refusal(try_join(&net, &token(), B).await);
    assert_eq!(words, "there were too many wrong join tokens from there; try again in 10 s");
    assert_eq!(gate.asked(), []);
    let elsewhere = Net { from: "10.0.0.2:40000", ..net };
    try_join(&elsewhere, &token(), B).await.expect("nobody else waits");
}

#[tokio::test(start_paused = true)]
async fn the_gates_words_reach_the_joiner() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let gate = TestGate::new(Some(&authority), &[&token()]);
    let _a = member(&net, &authority, &gate);
    assert_eq!(refusal(try_join(&net, &token(), UNWELCOME).await), "a node named 'bad' is a member already");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_joins_it_is_said_so() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let mut a = Spec::new(&net, A, "a:1");
    a.security = secured(&authority, &fleet(), A);
    let _a = a.start();
    assert_eq!(refusal(try_join(&net, &token(), B).await), "nodes can't join here");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_doesnt_know_the_secret_is_told_nothing() {
    let net = Net::default();
    // It knows the token's name and lets anyone in, but can't prove the secret.
    let mut listener = net.listener("a:1");
    let impostor = tokio::spawn(async move {
        let mut stream = impostor_tls(listener.next().await).await;
        let hello = read_frame(&mut stream).await;
        // The joiner's own proof, as the member's.
        let proof = &hello[hello.len() - 32..];
        stream.write_all(&frame(10, proof)).await.expect("sent");
        stream.flush().await.expect("sent");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        rest
    });
    let error = try_join(&net, &token(), B).await.expect_err("unproven");
    assert_eq!(error, JoinError::Unproven { address: "a:1".into() });
    assert_eq!(impostor.await.expect("no panic"), [], "nothing came after");
}

async fn read_frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let length = stream.read_u32().await.expect("a length");
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.expect("a frame");
    frame
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(14 + body.len()).expect("small").to_be_bytes().to_vec();
    bytes.extend([kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(body);
    bytes
}

async fn impostor_tls(stream: BoxedStream) -> tokio_rustls::server::TlsStream<BoxedStream> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["a".into()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("usable");
    tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.expect("TLS")
}

#[tokio::test(start_paused = true)]
async fn whoever_sits_between_joiner_and_member_can_pass_on_nothing() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let gate = TestGate::new(Some(&authority), &[&token()]);
    let _a = member(&net, &authority, &gate);
    // Two sessions, and every byte passed on from one to the other.
    let mut between = net.listener("between:1");
    let onwards = net.clone();
    tokio::spawn(async move {
        let mut near = impostor_tls(between.next().await).await;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        let far = onwards.open("a:1").expect("open");
        let name = "a".try_into().expect("a name");
        let far = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, far).await;
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far.expect("TLS")).await;
    });
    let result = join(&net, &"between:1".into(), &token(), &joiner(B)).await;
    assert_eq!(refusal(result), "the join token's secret is wrong: was it copied whole?");
    assert_eq!(gate.asked(), []);
    try_join(&net, &token(), B).await.expect("the same without anyone between");
}

#[tokio::test(start_paused = true)]
async fn a_join_at_a_place_that_isnt_a_node_ends_in_time() {
    let net = Net::default();
    let error = try_join(&net, &token(), B).await.expect_err("nobody");
    assert_eq!(error.to_string(), "no node answers at a:1: connection refused");
    let mut silent = net.listener("a:1");
    let token = token();
    let (error, _held) = tokio::join!(try_join(&net, &token, B), silent.next());
    assert_eq!(error.expect_err("silent").to_string(), "no node answers at a:1: no answer within 20s");
    let mut other = net.listener("a:1");
    let speaks = async { other.next().await.write_all(b"HTTP/1.1 400\r\n\r\n").await };
    let (error, _) = tokio::join!(try_join(&net, &token, B), speaks);
    assert!(error.expect_err("another protocol").to_string().contains("isn't TLS"));
}

#[tokio::test(start_paused = true)]
async fn in_a_simulation_joining_needs_the_secret_and_no_certificates() {
    let net = Net::default();
    let gate = TestGate::new(None, &[&token()]);
    let mut a = Spec::new(&net, A, "a:1");
    a.gate = Some(gate.clone());
    let _a = a.start();
    let plain = Joiner { key: None, channel: Channel::UnprotectedForSimulation, ..joiner(B) };
    let admitted = join(&net, &"a:1".into(), &token(), &plain).await.expect("admitted");
    assert_eq!((admitted.certificate, admitted.authorities.len()), (None, 0));
    let wrong = Token::of([1; 8], [3; 32]);
    join(&net, &"a:1".into(), &wrong, &plain).await.expect_err("wrong");
    assert_eq!(gate.asked().len(), 1);
}

/// Dials wherever an address of the tests was bound.
struct Loopback(String);

impl Dial for Loopback {
    fn dial(&self, _: Arc<str>) -> DialFuture {
        TcpDial.dial(self.0.as_str().into())
    }
}

/// A busy machine may take longer than a connection does.
async fn patiently(transport: &Transport, request: bytes::Bytes) -> Result<bytes::Bytes, CallError> {
    let mut answer = Err(CallError::Stopping);
    for _ in 0..20 {
        answer = transport.call(A, Service::Raft, request.clone(), 10 * SECOND).await;
        if !matches!(answer, Err(CallError::Unreachable { .. } | CallError::Deadline { .. })) {
            break;
        }
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_real_sockets_a_node_joins_talks_and_learns_that_it_isnt_trusted_any_more() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let dial: Arc<dyn Dial> = Arc::new(Loopback(address));
    let start = |node, security| {
        let (_kept, book) = tokio::sync::watch::channel(Arc::new(book(&[(A, "a:1")])));
        Transport::new(transport::Options {
            node,
            fleet: fleet(),
            address: "".into(),
            level: 2,
            version: "0.1.0".into(),
            security,
            dial: dial.clone(),
            book,
        })
    };
    let (authority, strangers) = (found(&fleet()), found(&fleet()));
    let a = start(A, secured(&authority, &fleet(), A));
    let gate = TestGate::new(Some(&authority), &[&token()]);
    a.listen(Box::new(TcpListen(listener)), echo(), Some(gate.clone()));

    // What is refused is heard, though the connection ends at once.
    let (at, wrong) = ("a:1".into(), Token::of([8; 8], [3; 32]));
    let signing = [(*strangers).clone()];
    for _ in 0..9 {
        let trusting = identity(&signing, &[&authority, &strangers], &fleet(), B, now_ms());
        let stranger = start(B, Security::Tls(tls(&trusting)));
        let error = patiently(&stranger, "x".into()).await.expect_err("a stranger");
        assert!(error.to_string().contains("doesn't trust the authority"), "{error}");
        refusal(join(&*dial, &at, &wrong, &joiner(B)).await);
    }
    join(&*dial, &at, &token(), &joiner(B)).await.expect("admitted");
    let b = start(B, secured(&authority, &fleet(), B));
    let large = bytes::Bytes::from(vec![7; transport::CALL_BYTES_MAX]);
    let answer = patiently(&b, large.clone()).await.expect("answered");
    assert_eq!(answer, large);
    let calls: Vec<_> =
        (0..30).map(|_| tokio::spawn(b.call(A, Service::Fleet, "x".into(), 10 * SECOND))).collect();
    for call in calls {
        assert_eq!(call.await.expect("no panic").expect("answered"), "x");
    }
}
