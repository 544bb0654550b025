//! TLS and SASL against a real broker: every protocol with every mechanism, and what a wrong
//! password, an unknown CA and a wrong listener look like when Apache Kafka answers.
#![allow(clippy::unwrap_used, reason = "a test ends at what it didn't expect")]

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka::client::TcpDial;
use kafka::fetch::{Position, TopicPartition};
use kafka::produce::{self, Part};
use kafka::{Client, ClientConfig, Error, batch, fetch, filler, topics};
use tests::secured::{
    Authority, BRIEF_SESSION_MS, MECHANISMS, PLAIN_USER, SCRAM_USER, SecuredKafka, User, jaas, quoted,
};

struct Kafka(SecuredKafka);

impl Kafka {
    fn client(&self, listener: &str, host: &str, keys: &[(&str, &str)]) -> Client {
        self.client_with(self.0.protocol(listener), listener, host, keys)
    }

    fn client_with(&self, protocol: &str, listener: &str, host: &str, keys: &[(&str, &str)]) -> Client {
        let bootstrap = format!("{host}:{}", self.0.port(listener));
        let mut configs = BTreeMap::from([
            ("bootstrap.servers".to_owned(), bootstrap),
            ("security.protocol".to_owned(), protocol.to_owned()),
        ]);
        if protocol.ends_with("SSL") {
            configs.insert("ssl.truststore.certificates".to_owned(), self.0.authority.pem());
        }
        configs.extend(keys.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        Client::new(ClientConfig::from_configs(&configs).unwrap(), Arc::new(TcpDial))
    }

    async fn refused(&self, listener: &str, host: &str, keys: &[(&str, &str)]) -> Error {
        self.client(listener, host, keys).metadata(None).await.map(drop).unwrap_err()
    }

    fn identity(&self) -> [(&str, &str); 2] {
        let client = &self.0.client;
        [("ssl.keystore.key", &client.key), ("ssl.keystore.certificate.chain", &client.chain)]
    }
}

fn login(mechanism: &str) -> [(&str, &str); 3] {
    let (user, password) = if mechanism == "PLAIN" { PLAIN_USER } else { SCRAM_USER };
    [("sasl.mechanism", mechanism), ("sasl.username", user), ("sasl.password", password)]
}

#[test]
#[ignore = "starts a real broker: cargo test -p kafka --test real_kafka_security -- --ignored"]
fn a_real_broker_is_reached_over_every_protocol_with_every_mechanism() {
    // The lock of the tests that want the machine for themselves.
    let machine = File::create(std::env::temp_dir().join("lockstep-tests.lock")).unwrap();
    machine.lock().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let kafka = Kafka(SecuredKafka::start("secured", directory.path()).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        good_ways_in(&kafka).await;
        refused_logins(&kafka).await;
        refused_tls(&kafka).await;
        wrong_listeners(&kafka).await;
        a_limited_session(&kafka).await;
        batches_over_tls(&kafka).await;
    });
    drop(runtime);
    kafka.0.cluster.stop().unwrap();
}

async fn good_ways_in(kafka: &Kafka) {
    let mut ways: Vec<(&str, Vec<(&str, &str)>)> =
        vec![("TLS", vec![]), ("TLS", kafka.identity().to_vec()), ("MUTUAL", kafka.identity().to_vec())];
    for mechanism in MECHANISMS {
        for listener in ["LOGIN", "BOTH"] {
            ways.push((listener, login(mechanism).to_vec()));
        }
    }
    let plain_jaas = jaas("plain.PlainLoginModule", &credentials(PLAIN_USER));
    let scram_jaas = jaas("scram.ScramLoginModule", &credentials(SCRAM_USER));
    ways.push(("BOTH", vec![("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", &plain_jaas)]));
    ways.push(("BOTH", vec![("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.jaas.config", &scram_jaas)]));
    for (listener, keys) in ways {
        let client = kafka.client(listener, "localhost", &keys);
        let told = format!("{listener} {:?}", keys.iter().map(|(key, _)| key).collect::<Vec<_>>());
        let begun = Instant::now();
        let metadata = client.metadata(None).await.unwrap_or_else(|e| panic!("{told}: {e}"));
        eprintln!("{told}: {:?}", begun.elapsed());
        assert!(metadata.brokers[&1].ends_with(&kafka.0.port(listener).to_string()), "{told}");
        // The addresses of metadata lead through the same listener.
        client.control(1).await.unwrap_or_else(|e| panic!("{told}: {e}"));
    }
}

fn credentials((user, password): User) -> String {
    format!("username={} password={}", quoted(user), quoted(password))
}

async fn refused_logins(kafka: &Kafka) {
    for mechanism in MECHANISMS {
        for listener in ["LOGIN", "BOTH"] {
            let mut keys = login(mechanism);
            keys[2].1 = "wrong password";
            let error = kafka.refused(listener, "localhost", &keys).await;
            eprintln!("{error}");
            assert!(matches!(&error, Error::Authentication { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(mechanism) && text.contains("Authentication failed"), "{text}");
            assert!(!text.contains("wrong password"), "{text}");
        }
    }
}

async fn refused_tls(kafka: &Kafka) {
    let other = Authority::new("another CA").unwrap();
    let stranger = other.issue("stranger", &[]).unwrap();
    let stranger =
        [("ssl.keystore.key", &*stranger.key), ("ssl.keystore.certificate.chain", &*stranger.chain)];
    let other = other.pem();
    let wrong_ca = [("ssl.truststore.certificates", &*other)];
    for (listener, host, keys, expected) in [
        ("TLS", "localhost", &wrong_ca[..], "isn't signed by a CA that is trusted"),
        ("TLS", "127.0.0.1", &[], "is for localhost, not for '127.0.0.1'"),
        ("MUTUAL", "localhost", &[], "client certificate"),
        ("MUTUAL", "localhost", &stranger, "refuses the client certificate"),
    ] {
        let error = kafka.refused(listener, host, keys).await;
        eprintln!("{error}");
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let any_name = [("ssl.endpoint.identification.algorithm", "")];
    kafka.client("TLS", "127.0.0.1", &any_name).metadata(None).await.unwrap();
}

/// The right keys for another listener.
async fn wrong_listeners(kafka: &Kafka) {
    let plain = login("PLAIN");
    for (listener, protocol, keys, expected) in [
        ("TLS", "PLAINTEXT", &[][..], "TLS"),
        ("BOTH", "SASL_PLAINTEXT", &plain[..], "TLS"),
        ("LOGIN", "SSL", &[], "a listener that doesn't speak TLS does that"),
        ("LOGIN", "PLAINTEXT", &[], "a listener that wants SASL does that"),
        ("BOTH", "SSL", &[], "a listener that wants SASL does that"),
        ("TLS", "SASL_SSL", &plain, "this listener takes no SASL"),
    ] {
        let client = kafka.client_with(protocol, listener, "localhost", keys);
        let error = client.metadata(None).await.map(drop).unwrap_err();
        eprintln!("{protocol} to {listener}: {error}");
        assert!(error.to_string().contains(expected), "{protocol} to {listener}: {error}");
    }
}

/// The broker drops a session at its end; ours is gone before, and the next one works.
async fn a_limited_session(kafka: &Kafka) {
    let client = kafka.client("BRIEF", "localhost", &login("PLAIN"));
    let begun = Instant::now();
    let connection = client.any_broker().await.unwrap();
    client.metadata(None).await.unwrap();
    let error = connection.wait_closed().await;
    let lived = begun.elapsed();
    eprintln!("{error} after {lived:?}");
    assert!(error.to_string().contains("its SASL session is about to end"), "{error}");
    assert!(lived < Duration::from_millis(BRIEF_SESSION_MS), "{lived:?}");
    client.metadata(None).await.unwrap();
}

/// Megabytes in one request and one response come back as they were.
async fn batches_over_tls(kafka: &Kafka) {
    let client = kafka.client("BOTH", "localhost", &login("SCRAM-SHA-256"));
    let topic: Arc<str> = "over-tls".into();
    let topic_id = topics::create_topic(&client, &topic, 8, Some(1), &BTreeMap::new(), false).await.unwrap();
    let sent = filler::filler_batch(0, filler::RECORDS_MAX);
    let part = |partition| Part { topic: topic.clone(), partition, batch: sent.readdress(-1, -1, -1) };
    let parts: Vec<Part> = (0..8).map(part).collect();
    // The topic's partitions come to their partition leader a moment after the answer.
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.metadata(Some(&[&*topic])).await.unwrap().topics.values().any(|topic| topic.is_err()) {
        assert!(Instant::now() < deadline, "the topic doesn't appear");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let connection = client.dial_broker(1).await.unwrap();
    let mut reply = produce::start(&connection, &parts, Duration::from_secs(30), None).await.unwrap();
    let (answers, _) = produce::answers(&connection, reply.wait().await.unwrap()).unwrap();
    assert_eq!(answers.len(), 8);
    for answer in answers {
        assert_eq!(answer.base_offset, Ok(0));
        let partition = TopicPartition { topic: topic.clone(), partition: answer.partition };
        let position = Position { topic_id, offset: 0, leader_epoch: -1 };
        let share = fetch::fetch_once(&connection, &partition, position, 4 << 20).await.unwrap();
        let cut = batch::cut(&share.records, 0);
        assert_eq!(cut.batches.len(), 1);
        let payloads: (Bytes, Bytes) = (cut.batches[0].payload(), sent.payload());
        assert!(payloads.0 == payloads.1, "the payload differs");
    }
}
