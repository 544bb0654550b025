//! A mirror between clusters that ask for TLS and a login: set up with secrets as references,
//! exact, through kills and a password that is wrong for a while; and no secret lies around.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tests::compare::{self, Side};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::wait_caught_up;
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::secured::{Issued, SCRAM_USER, SecuredKafka};

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const PARTITIONS: i32 = 8;
const RECORDS_PER_SECOND: u32 = 1_000;
/// Long enough that every partition has something under way at the kill.
const LOAD_BEFORE_KILL: Duration = Duration::from_secs(5);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);
/// A link looks at its clusters every five seconds; beside two brokers on two cores, later.
const LINK_LIMIT: Duration = Duration::from_secs(60);
const LINK_POLL: Duration = Duration::from_millis(250);

#[test]
fn a_mirror_over_tls_and_a_login_is_exact_and_its_secrets_stay_where_they_are() {
    Scenario::share("security", |scenario| {
        let directory = scenario.directory();
        let east = SecuredKafka::start("east", directory)?;
        let west = SecuredKafka::start("west", directory)?;
        create_topic(&east.cluster.bootstrap(), TOPIC, PARTITIONS, &[])?;
        let password = directory.join("password");
        let mut node = Node::bootstrap("node-1", directory)?;

        // Wrong first: nothing may be registered, and the reason is the broker's.
        fs::write(&password, "wrong-password\n")?;
        let east_keys = east.login_properties(&password, directory)?;
        let refused = register(&node, "east", &east_keys).expect_err("a wrong password is refused");
        let refused = format!("{refused:#}");
        ensure!(refused.contains("invalid credentials with SASL mechanism SCRAM-SHA-512"), "{refused}");
        ensure!(!refused.contains("wrong-password"), "{refused}");

        fs::write(&password, SCRAM_USER.1)?;
        register(&node, "east", &east_keys)?;
        register(&node, "west", &west.certificate_properties(directory)?)?;
        node.cli(&["link", "create", LINK, "--source", "east", "--destination", "west"])?;
        node.cli(&["mirror", "create", TOPIC, "--link", LINK])?;

        let load = Load::start(&LoadConfig {
            bootstrap: east.cluster.bootstrap(),
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
            profiles: PROFILES.to_vec(),
            records_per_second: RECORDS_PER_SECOND,
            seed: scenario.seed(),
            age: Duration::ZERO,
        })?;
        std::thread::sleep(LOAD_BEFORE_KILL);
        node.kill9()?;
        fs::write(&password, "wrong-password")?;
        node.restart()?;
        wait_link(&node, "AUTHENTICATION_ERROR")?;
        // Rotated: the next connection has it, without a restart.
        fs::write(&password, SCRAM_USER.1)?;
        wait_link(&node, "NO_ERROR")?;

        let report = load.stop()?;
        wait_caught_up(&mut node, &east.cluster, &west.cluster, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        let side = |name, kafka: &SecuredKafka| Side {
            name,
            bootstrap: kafka.cluster.bootstrap(),
            topic: TOPIC.to_owned(),
        };
        let found = compare::raw_batches(&side("source", &east), &side("destination", &west))?;
        ensure!(found.records == report.total(), "{found:?}, acknowledged {}", report.total());
        node.sigterm()?;
        ensure_absent(&directory.join("node-1"), &[SCRAM_USER.1, "wrong-password", body(&west.client)?])
    });
}

fn register(node: &Node, name: &str, properties: &Path) -> Result<()> {
    let properties = properties.to_str().context("a path of UTF-8")?;
    node.cli(&["cluster", "create", name, "--config", properties]).map(drop)
}

fn wait_link(node: &Node, error: &str) -> Result<()> {
    let mut last = String::new();
    let found = poll_until(LINK_LIMIT, LINK_POLL, || {
        match node.get_json(&format!("/kafka/v3/clusters/west/links/{LINK}")) {
            Ok(link) => last = format!("{} {}", link["link_error"], link["link_error_message"]),
            Err(error) => last = format!("{error:#}"),
        }
        last.contains(error).then_some(())
    });
    ensure!(!last.contains("wrong-password"), "{last}");
    found.with_context(|| format!("the link doesn't show {error} but {last}"))
}

/// A line of the private key.
fn body(issued: &Issued) -> Result<&str> {
    issued.key.lines().nth(1).context("a key of several lines")
}

/// No file below `directory` contains one of `secrets`.
fn ensure_absent(directory: &Path, secrets: &[&str]) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            ensure_absent(&path, secrets)?;
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let holds = |secret: &&&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        if secrets.iter().any(|secret| holds(&secret)) {
            bail!("{} contains a secret", path.display());
        }
    }
    Ok(())
}
