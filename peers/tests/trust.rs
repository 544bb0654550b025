//! Who talks to whom: fleets, nodes and certificates that aren't the right ones are refused in words.

mod support;
#[path = "support/tls.rs"]
mod tls_support;

use std::path::PathBuf;
use std::sync::Arc;

use catalog::{FleetId, NodeId};
use peers::authority::{self, renewal_is_due};
use peers::identity::Identity;
use peers::tls::Material;
use peers::{CallError, Refusal, Security, Tls};
use support::{A, B, Member, Net, SECOND, Spec, book, fleet, pair};
use tls_support::{Anyone, DAY_MS, der, found, identity, now_ms, secured, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const OTHER: NodeId = NodeId(0xc);

fn start(net: &Net, node: NodeId, address: &'static str, security: Security) -> Member {
    let mut spec = Spec::new(net, node, address);
    spec.security = security;
    spec.start()
}

#[tokio::test(start_paused = true)]
async fn nodes_with_certificates_of_their_fleet_talk_both_ways() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let a = start(&net, A, "a:1", secured(&authority, &fleet(), A));
    let b = start(&net, B, "b:1", secured(&authority, &fleet(), B));
    let large = vec![7; 1 << 20];
    assert_eq!(a.call(B, large.clone()).await.expect("answered"), large);
    assert_eq!(b.call(A, "x").await.expect("answered"), "x");
}

#[tokio::test(start_paused = true)]
async fn another_fleet_is_refused() {
    let net = Net::default();
    let mut b = Spec::new(&net, B, "b:1");
    b.fleet = FleetId("another".into());
    let (a, _b) = (Spec::new(&net, A, "a:1").start(), b.start());
    let words = "fleet: it is a node of fleet another, not of aB_-xyzXYZ0123456789ab";
    assert_eq!(a.refusal(B).await, words);
    assert_eq!(a.transport.refusals().borrow()[&B].name(), "fleet");
}

#[tokio::test(start_paused = true)]
async fn another_node_at_the_address_is_refused_until_the_right_one_is_there() {
    let net = Net::default();
    let mut a = Spec::new(&net, A, "a:1");
    a.book = book(&[(B, "o:1")]);
    let (a, _other) = (a.start(), Spec::new(&net, OTHER, "o:1").start());
    let words = "node: it is node 000000000000000c, not 000000000000000b: does that have a new address?";
    assert_eq!(a.refusal(B).await, words);
    a.book.send_replace(Arc::new(book(&[(B, "b:1")])));
    let _b = Spec::new(&net, B, "b:1").start();
    tokio::time::sleep(6 * SECOND).await;
    a.call(B, "x").await.expect("answered");
    assert!(a.transport.refusals().borrow().is_empty(), "forgotten once they have met");
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_node_is_refused() {
    let net = Net::default();
    let mut copy = Spec::new(&net, B, "copy:1");
    copy.book = book(&[(A, "b:1")]);
    let (_b, copy) = (Spec::new(&net, B, "b:1").start(), copy.start());
    assert_eq!(
        copy.refusal(A).await,
        "node: it is node 000000000000000b itself, or another one with a copy of its data directory: \
         each node needs its own"
    );
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_learns_it_at_its_next_call_and_keeps_no_connection() {
    let net = Net::default();
    let (a, b) = pair(&net);
    a.call(B, "x").await.expect("still a member");
    let mut without = book(&[(B, "b:1")]);
    without.removed.insert(A);
    b.book.send_replace(Arc::new(without));
    let mut refusals = a.transport.refusals();
    a.call(B, "x").await.expect_err("cut off");
    a.call(B, "x").await.expect_err("refused");
    let words = "node 000000000000000a was removed from this fleet; let it join again as a new node, \
                 with an empty data directory";
    assert!(refusals.has_changed().expect("alive"));
    assert_eq!(refusals.borrow_and_update()[&B], Refusal::Removed(words.into()));
    let error = a.call(B, "x").await.expect_err("refused");
    assert_eq!(error.to_string(), format!("node 000000000000000b at b:1 and this one don't talk: {words}"));
    assert_eq!(b.call(A, "x").await, Err(CallError::NoAddress(A)), "nor is it called");
}

#[tokio::test(start_paused = true)]
async fn an_authority_of_another_fleet_is_not_trusted() {
    let (net, ours, theirs) = (Net::default(), found(&fleet()), found(&fleet()));
    let a = start(&net, A, "a:1", secured(&ours, &fleet(), A));
    let b = start(&net, B, "b:1", secured(&theirs, &fleet(), B));
    let words = "certificate: its certificate isn't signed by an authority that this node trusts: \
                 is it of this fleet?";
    assert_eq!(a.refusal(B).await, words);
    assert_eq!(b.refusal(A).await, words);
}

#[tokio::test(start_paused = true)]
async fn a_caller_whom_the_called_node_doesnt_trust_learns_why() {
    let (net, ours, theirs) = (Net::default(), found(&fleet()), found(&fleet()));
    // Trusts both; is trusted by neither.
    let stranger = identity(&[(*theirs).clone()], &[&ours, &theirs], &fleet(), A, now_ms());
    let a = start(&net, A, "a:1", Security::Tls(tls(&stranger)));
    let _b = start(&net, B, "b:1", secured(&ours, &fleet(), B));
    assert_eq!(
        a.refusal(B).await,
        "certificate: it doesn't trust the authority that signed this node's certificate: another fleet?"
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_refused_by_either_side() {
    let net = Net::default();
    let then = now_ms() - 100 * DAY_MS;
    let authority = Arc::new(authority::found(&fleet(), then).expect("founded"));
    let signing = [(*authority).clone()];
    let expired = |node| Security::Tls(tls(&identity(&signing, &[&authority], &fleet(), node, then)));
    let a = start(&net, A, "a:1", secured(&authority, &fleet(), A));
    let b = start(&net, B, "b:1", expired(B));
    assert_eq!(a.refusal(B).await, "certificate: its certificate has expired; are both clocks right?");
    assert_eq!(
        b.refusal(A).await,
        "certificate: it says that this node's certificate has expired or isn't valid yet"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_the_first_of_its_certificates() {
    let soon = 40 * SECOND;
    for expires_soon in [A, B] {
        let (net, authority) = (Net::default(), found(&fleet()));
        let signing = [(*authority).clone()];
        let made_ms = now_ms() - 90 * DAY_MS + 40_000;
        let security = |node| match node == expires_soon {
            true => Security::Tls(tls(&identity(&signing, &[&authority], &fleet(), node, made_ms))),
            false => secured(&authority, &fleet(), node),
        };
        let a = start(&net, A, "a:1", security(A));
        let _b = start(&net, B, "b:1", security(B));
        for _ in 0..2 {
            a.call(B, "x").await.expect("answered");
            tokio::time::sleep(soon / 2 - SECOND).await;
        }
        a.call(B, "x").await.expect("answered");
        assert_eq!(net.dials(), 1, "as long as it is valid");
        tokio::time::sleep(3 * SECOND).await;
        // By the system's clock, which stands still here, a new one may be made.
        a.call(B, "x").await.expect("answered");
        assert_eq!(net.dials(), 2, "{expires_soon}'s certificate has expired");
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_the_future_is_refused_beyond_the_tolerance() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let signing = [(*authority).clone()];
    let at = |ms| Security::Tls(tls(&identity(&signing, &[&authority], &fleet(), B, now_ms() + ms)));
    let a = start(&net, A, "a:1", secured(&authority, &fleet(), A));
    let fast = start(&net, B, "b:1", at(DAY_MS / 24));
    a.call(B, "x").await.expect("a clock that is an hour off is tolerated");
    fast.transport.stop();
    let _faster = start(&net, B, "b:1", at(DAY_MS));
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.refusal(B).await, "certificate: its certificate isn't valid yet; are both clocks right?");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_node_is_refused_by_either_side() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let a = start(&net, A, "a:1", secured(&authority, &fleet(), A));
    let b = start(&net, B, "b:1", secured(&authority, &fleet(), OTHER));
    assert_eq!(
        a.refusal(B).await,
        "certificate: the certificate is node 000000000000000c's, not node 000000000000000b's"
    );
    assert_eq!(
        b.refusal(A).await,
        "certificate: the certificate is node 000000000000000c's, not node 000000000000000b's"
    );
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_fleet_by_the_same_authority_is_refused() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let signing = [(*authority).clone()];
    // The authority's name is the other fleet's too, or the chain would lead nowhere.
    let wrong = identity(&signing, &[&authority], &fleet(), B, now_ms());
    let own = Material { fleet: Some(FleetId("another".into())), ..Material::of_fleet(&wrong) };
    let a = start(&net, A, "a:1", Security::Tls(Tls::new(own).expect("usable")));
    let _b = start(&net, B, "b:1", secured(&authority, &fleet(), B));
    assert_eq!(
        a.refusal(B).await,
        "fleet: the certificate is of fleet aB_-xyzXYZ0123456789ab, not of another"
    );
}

#[tokio::test(start_paused = true)]
async fn without_tls_nobody_gets_anywhere() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let a = Spec::new(&net, A, "a:1").start();
    let b = start(&net, B, "b:1", secured(&authority, &fleet(), B));
    assert!(a.refusal(B).await.starts_with("garbage"), "{}", a.refusal(B).await);
    let error = b.call(A, "x").await.expect_err("no TLS there");
    assert!(error.to_string().contains("isn't TLS"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_a_certificate_is_refused_and_so_is_an_older_tls() {
    let (net, authority) = (Net::default(), found(&fleet()));
    let _b = start(&net, B, "b:1", secured(&authority, &fleet(), B));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der(&authority.certificate)).expect("a root");
    let connect = |version: &'static rustls::SupportedProtocolVersion| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        let stream = net.open("b:1").expect("open");
        let name = "b".try_into().expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream)
    };
    let error = connect(&rustls::version::TLS12).await.expect_err("too old");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let mut stream = connect(&rustls::version::TLS13).await.expect("connected");
    let mut hello = b"LSTP\0\x01\0\x01".to_vec();
    hello.extend([0, 22]);
    hello.extend(fleet().0.as_bytes());
    hello.extend(A.0.to_be_bytes());
    hello.extend([0, 0]);
    hello.extend(B.0.to_be_bytes());
    hello.extend([1, 0, 0, 0, 2, 0, 0]);
    let mut frame = u32::try_from(14 + hello.len()).expect("short").to_be_bytes().to_vec();
    frame.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(hello);
    stream.write_all(&frame).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("closed");
    assert!(String::from_utf8_lossy(&answer).ends_with("the calling node shows no certificate"));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_changes_its_authority_without_a_restart_and_the_old_one_opens_nothing() {
    let (net, old, new) = (Net::default(), found(&fleet()), found(&fleet()));
    let both = [(*old).clone(), (*new).clone()];
    let material = |node, signing: &[_], trusted: &[&_]| {
        Material::of_fleet(&identity(signing, trusted, &fleet(), node, now_ms()))
    };
    let tls_of = |node| Tls::new(material(node, &both[..1], &[&old])).expect("usable");
    let (tls_a, tls_b) = (tls_of(A), tls_of(B));
    let a = start(&net, A, "a:1", Security::Tls(tls_a.clone()));
    let _b = start(&net, B, "b:1", Security::Tls(tls_b.clone()));
    let calls_pass = async || a.call(B, "x").await.expect("answered");
    calls_pass().await;
    // Trust both, then renew, then trust the new one alone: at no time is a call lost.
    for tls in [(A, &tls_a), (B, &tls_b)] {
        tls.1.replace(material(tls.0, &both[..1], &[&old, &new])).expect("usable");
        calls_pass().await;
    }
    for tls in [(A, &tls_a), (B, &tls_b)] {
        tls.1.replace(material(tls.0, &both, &[&old, &new])).expect("usable");
        calls_pass().await;
    }
    assert_eq!(net.dials(), 1, "connections outlive renewal");
    tls_b.replace(material(B, &both, &[&new])).expect("usable");
    tokio::time::sleep(SECOND / 10).await;
    calls_pass().await;
    assert_eq!(net.dials(), 2, "what was connected under the old authority is closed");
    // Someone has the old authority's key.
    a.transport.stop();
    let thief = material(A, &both[..1], &[&old, &new]);
    let thief = start(&net, A, "thief:1", Security::Tls(Tls::new(thief).expect("usable")));
    assert!(thief.refusal(B).await.starts_with("certificate: it doesn't trust the authority"));
}

#[test]
fn renewal_is_due_after_two_thirds_or_with_a_new_authority() {
    let (old, new) = (found(&fleet()), found(&fleet()));
    let both = [(*old).clone(), (*new).clone()];
    let made = now_ms();
    let certificate = identity(&both[..1], &[&old], &fleet(), A, made).certificate;
    assert!(!renewal_is_due(&certificate, &both[..1], made));
    assert!(!renewal_is_due(&certificate, &both[..1], made + 59 * DAY_MS));
    assert!(renewal_is_due(&certificate, &both[..1], made + 61 * DAY_MS));
    assert!(renewal_is_due(&certificate, &both, made), "another one signs now");
    let renewed = identity(&both, &[&old], &fleet(), A, made).certificate;
    assert!(!renewal_is_due(&renewed, &both, made));
    assert!(renewal_is_due(&der(b"none"), &both, made));
}

#[test]
fn how_long_a_certificate_is_valid_is_known() {
    let (authority, at) = (found(&fleet()), now_ms());
    let identity = identity(&[(*authority).clone()], &[&authority], &fleet(), A, at);
    let expires_ms = tls(&identity).expires_ms().expect("known");
    assert_eq!(expires_ms / 1_000, (at + 90 * DAY_MS) / 1_000);
}

#[test]
fn what_is_no_public_key_is_not_signed() {
    let authority = found(&fleet());
    let signed = authority::sign(&[(*authority).clone()], &fleet(), A, b"no key", now_ms());
    assert_eq!(signed, Err(authority::CertificateError::PublicKey));
    let signed = authority::sign(&[], &fleet(), A, &[4; 65], now_ms());
    assert_eq!(signed, Err(authority::CertificateError::NoAuthority));
}

/// Certificates as an operator's own authority makes them: of host names.
struct Operator {
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    directory: tempfile::TempDir,
}

impl Operator {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
        Self { authority, directory: tempfile::tempdir().expect("a directory") }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn files(&self, host: &str) -> [PathBuf; 3] {
        let params = rcgen::CertificateParams::new(vec![host.into()]).expect("a name");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("signed");
        [
            self.write(&format!("{host}.crt"), &certificate.pem()),
            self.write(&format!("{host}.key"), &key.serialize_pem()),
            self.write("ca.crt", &self.authority.pem()),
        ]
    }

    fn tls(&self, host: &str) -> Security {
        let [certificate, key, authorities] = self.files(host);
        let material = Material::own(&certificate, &key, &authorities).expect("readable");
        Security::Tls(Tls::new(material).expect("usable"))
    }
}

#[tokio::test(start_paused = true)]
async fn certificates_of_the_operators_own_authority_let_their_holders_talk_and_no_one_else() {
    let (net, operator) = (Net::default(), Operator::new());
    let a = start(&net, A, "a:1", operator.tls("a.example"));
    let _b = start(&net, B, "b:1", operator.tls("b.example"));
    a.call(B, "x").await.expect("answered");
    a.transport.stop();
    let a = start(&net, A, "a:2", Operator::new().tls("a.example"));
    assert!(a.refusal(B).await.starts_with("certificate: "), "{}", a.refusal(B).await);
}

#[test]
fn own_certificates_that_cant_be_used_are_named() {
    let operator = Operator::new();
    let [certificate, key, authorities] = operator.files("a.example");
    let wrong = |certificate: &PathBuf, key: &PathBuf, authorities: &PathBuf| {
        let material = Material::own(certificate, key, authorities);
        material.and_then(Tls::new).err().expect("unusable").to_string()
    };
    let missing = operator.directory.path().join("missing.crt");
    assert!(wrong(&missing, &key, &authorities).contains("missing.crt can't be used: "));
    assert!(wrong(&key, &key, &authorities).contains("a.example.key can't be used: it holds no certificate"));
    assert!(wrong(&certificate, &certificate, &authorities).contains("a.example.crt can't be used: "));
    let [_, other_key, _] = operator.files("b.example");
    assert!(
        wrong(&certificate, &other_key, &authorities).starts_with("this node's certificate can't be used")
    );
    let secret = std::fs::read_to_string(&key).expect("a key");
    let secret = secret.lines().nth(1).expect("a line");
    assert!(!wrong(&certificate, &other_key, &authorities).contains(secret));
}

#[test]
fn an_identity_shows_the_key_to_no_one() {
    let authority = found(&fleet());
    let identity: Identity = identity(&[(*authority).clone()], &[&authority], &fleet(), A, now_ms());
    let shown = format!("{:?}", Material::of_fleet(&identity));
    assert!(shown.contains("secret key elided"), "{shown}");
}
