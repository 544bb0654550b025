//! What an operator changes while a mirror runs under load: a link's configuration, how a cluster is
//! reached, a pause, an outage of the source, the end. Mirroring goes on at once each time, also of
//! records so old that brokers don't guard them, and what is mirrored stays exact.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::cluster::{KafkaCluster, KafkaConfig};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::{create_link, describe, mirrored, wait_caught_up};
use tests::node::Node;
use tests::poll_until;
use tests::scenario::Scenario;
use tests::secured::{SCRAM_USER, SecuredKafka};
use tests::settled::{check_active, compare_ends, wait_no_lag};
use tests::wire::RawReader;

const TOPIC: &str = "orders";
const LINK: &str = "east-west";
const WEST: &str = "west";
const PARTITIONS: i32 = 4;
const RECORDS_PER_SECOND: u32 = 300;
/// Beyond the day for which brokers remember who wrote: such partitions wait 20 s whenever a request
/// may still be under way.
const AGE: Duration = Duration::from_secs(2 * 24 * 3600);

/// A second or so on an idle machine, and far below the 20 s of a doubt.
const GOES_ON_LIMIT: Duration = Duration::from_secs(10);
/// What was under way at a change has arrived by then.
const SETTLE: Duration = Duration::from_millis(500);
const STILL: Duration = Duration::from_secs(2);
const SHOWN_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);
/// A topic's deletion is answered before every broker knows of it.
const DELETED_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn an_operator_changes_everything_live_and_the_mirror_stays_exact() {
    Scenario::share("operations", |scenario| {
        let mut east = SecuredKafka::start("east", scenario.directory())?;
        let west = KafkaCluster::start(KafkaConfig::single(WEST, scenario.directory()))?;
        create_topic(&east.cluster.bootstrap(), TOPIC, PARTITIONS, &[])?;
        let mut node = Node::bootstrap("node-1", scenario.directory())?;
        create_link(&node, &east.cluster, &west, LINK)?;
        wait_states(&node, "ACTIVE", None)?;

        let load = Load::start(&LoadConfig {
            bootstrap: east.cluster.bootstrap(),
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
            profiles: PROFILES.to_vec(),
            records_per_second: RECORDS_PER_SECOND,
            seed: scenario.seed(),
            age: AGE,
        })?;
        node.cli(&["mirror", "create", TOPIC, "--link", LINK])?;
        wait_states(&node, "ACTIVE", Some("ACTIVE"))?;
        let mut reader = RawReader::new(&west.bootstrap())?;
        goes_on("a new mirror", &node, &mut reader)?;

        alter_link(&node, &mut reader)?;
        alter_cluster(&node, &mut reader, &east, &west, scenario.directory())?;
        pause(&node, &mut reader)?;

        let report = load.stop()?;
        wait_caught_up(&mut node, &east.cluster, &west, (LINK, TOPIC), CATCH_UP_LIMIT)?;
        let records = compare_ends(&east.cluster, &west, TOPIC)?;
        ensure!(records == report.total(), "{records} at both ends, {} acknowledged", report.total());
        wait_no_lag(&node, WEST, LINK, TOPIC)?;
        check_active(&node, WEST, LINK, TOPIC)?;
        for name in ["fetch", "produce", "end_to_end"] {
            let name = format!("lockstep_{name}_seconds_count");
            ensure!(node.metric(&name)? > 0.0, "{name} counts nothing");
        }

        lose_source(&node, &mut east)?;
        delete_all(&node, &mut reader, &mut east)?;
        node.sigterm()
    });
}

fn alter_link(node: &Node, reader: &mut RawReader) -> Result<()> {
    let changes = "replica.fetch.wait.max.ms=100,metadata.max.age.ms=1000,availability.check.ms=500";
    node.cli(&["link", "update", LINK, "--config", changes])?;
    goes_on("another configuration", node, reader)?;
    node.cli(&["link", "update", LINK, "--delete-config", "replica.fetch.wait.max.ms"])?;
    goes_on("a default again", node, reader)?;
    let listed = node.cli(&["link", "configuration", "list", LINK])?;
    for line in ["metadata.max.age.ms 1000 set", "replica.fetch.wait.max.ms 500 default"] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(listed.lines().any(|found| words(found) == line), "{line} is not in\n{listed}");
    }
    Ok(())
}

/// To another listener of the same brokers, where a login is asked for.
fn alter_cluster(
    node: &Node,
    reader: &mut RawReader,
    east: &SecuredKafka,
    west: &KafkaCluster,
    directory: &Path,
) -> Result<()> {
    let update = |arguments: &[&str]| node.cli(&[&["cluster", "update", "east"], arguments].concat());
    let other = update(&["--bootstrap-server", &west.bootstrap()]).expect_err("another cluster is refused");
    ensure!(format!("{other:#}").contains("the brokers answer as Kafka cluster"), "{other:#}");

    let password = directory.join("password");
    fs::write(&password, "wrong-password").context("write the password")?;
    let login = format!(
        "bootstrap.servers=localhost:{},security.protocol=SASL_PLAINTEXT,sasl.mechanism=SCRAM-SHA-512,\
         sasl.username={},sasl.password=file:{}",
        east.port("LOGIN"),
        SCRAM_USER.0,
        password.display()
    );
    let refused = update(&["--config", &login]).expect_err("a wrong password is refused");
    ensure!(format!("{refused:#}").contains("invalid credentials"), "{refused:#}");
    goes_on("changes that were refused", node, reader)?;
    update(&["--config", &login, "--no-validate"])?;
    let link = wait_states(node, "UNAVAILABLE", Some("SOURCE_UNAVAILABLE"))?;
    ensure!(link["link_error"] == "AUTHENTICATION_ERROR", "{link:#}");

    fs::write(&password, SCRAM_USER.1).context("write the password")?;
    wait_states(node, "ACTIVE", Some("ACTIVE"))?;
    goes_on("a login", node, reader)?;
    let plain = ["--bootstrap-server", &east.cluster.bootstrap(), "--config", "security.protocol=PLAINTEXT"];
    let login_keys = ["--delete-config", "sasl.mechanism,sasl.username,sasl.password"];
    update(&[plain.as_slice(), &login_keys].concat())?;
    goes_on("no login any more", node, reader)
}

fn pause(node: &Node, reader: &mut RawReader) -> Result<()> {
    node.cli(&["mirror", "pause", TOPIC, "--link", LINK])?;
    std::thread::sleep(SETTLE);
    let paused_at = mirrored(reader, TOPIC)?;
    std::thread::sleep(STILL);
    let still_at = mirrored(reader, TOPIC)?;
    ensure!(still_at == paused_at, "{} offsets were mirrored during a pause", still_at - paused_at);
    let refused = node.cli(&["link", "delete", LINK, "--yes"]).expect_err("a link in use stays");
    ensure!(format!("{refused:#}").contains("is still in use: 1 mirror topic(s)"), "{refused:#}");
    node.cli(&["mirror", "resume", TOPIC, "--link", LINK])?;
    goes_on("a pause", node, reader)
}

fn lose_source(node: &Node, east: &mut SecuredKafka) -> Result<()> {
    east.cluster.kill(1)?;
    wait_states(node, "UNAVAILABLE", Some("SOURCE_UNAVAILABLE"))?;
    let mirror = node.mirror_json(WEST, LINK, TOPIC)?;
    let rows = mirror["mirror_lags"].as_array().context("rows")?;
    ensure!(rows.iter().all(|row| row["lag"].is_null()), "a lag without a source: {mirror:#}");
    ensure!(node.metric("lockstep_mirror_lag_known")? == 0.0, "a known lag without a source");
    east.cluster.restart(1)?;
    wait_states(node, "ACTIVE", Some("ACTIVE"))?;
    wait_no_lag(node, WEST, LINK, TOPIC)
}

/// While partitions look at a source that holds its connections open and is silent.
fn delete_all(node: &Node, reader: &mut RawReader, east: &mut SecuredKafka) -> Result<()> {
    let unasked = node.cli(&["mirror", "delete", TOPIC, "--link", LINK, "--delete-topic"]);
    let unasked = unasked.expect_err("nobody is there to be asked");
    ensure!(format!("{unasked:#}").contains("needs --yes"), "{unasked:#}");
    ensure!(reader.ends_if_exists(TOPIC)?.is_some(), "the topic went unasked");
    node.cli(&["mirror", "pause", TOPIC, "--link", LINK])?;
    std::thread::sleep(SETTLE);
    east.cluster.pause(1)?;
    node.cli(&["mirror", "resume", TOPIC, "--link", LINK])?;
    std::thread::sleep(SETTLE);
    let asked_at = Instant::now();
    node.cli(&["mirror", "delete", TOPIC, "--link", LINK, "--delete-topic", "--yes"])?;
    ensure!(asked_at.elapsed() < GOES_ON_LIMIT, "the deletion took {:?}", asked_at.elapsed());
    eprintln!("deleted {:?} after it was asked for", asked_at.elapsed());
    poll_until(DELETED_LIMIT, POLL, || reader.ends_if_exists(TOPIC).ok()?.is_none().then_some(()))
        .context("the topic is still there")?;
    east.cluster.resume(1)?;
    wait_states(node, "ACTIVE", None)?;
    node.cli(&["link", "delete", LINK, "--yes"])?;
    node.cli(&["cluster", "delete", "east"])?;
    Ok(())
}

/// More is mirrored than what was under way.
fn goes_on(after: &str, node: &Node, reader: &mut RawReader) -> Result<()> {
    let changed_at = Instant::now();
    std::thread::sleep(SETTLE);
    let settled = mirrored(reader, TOPIC)?;
    while mirrored(reader, TOPIC)? <= settled {
        if changed_at.elapsed() > GOES_ON_LIMIT {
            bail!("nothing mirrored for {GOES_ON_LIMIT:?} after {after}\n{}", describe(node, LINK, TOPIC));
        }
        std::thread::sleep(POLL);
    }
    eprintln!("goes on {:?} after {after}", changed_at.elapsed());
    Ok(())
}

/// Waits until the link, and its mirror if there is one, shows this state; returns the link.
fn wait_states(node: &Node, link_state: &str, mirror_status: Option<&str>) -> Result<Value> {
    let mut last = String::new();
    let since = Instant::now();
    let found = poll_until(SHOWN_LIMIT, POLL, || {
        let link = node.get_json(&format!("/kafka/v3/clusters/{WEST}/links/{LINK}")).ok()?;
        let mirror = match mirror_status {
            Some(_) => node.mirror_json(WEST, LINK, TOPIC).ok()?["mirror_status"].clone(),
            None => Value::Null,
        };
        last = format!("{} {} {mirror}", link["link_state"], link["link_error_message"]);
        (link["link_state"] == link_state && mirror.as_str() == mirror_status).then_some(link)
    });
    eprintln!("{link_state} {mirror_status:?} after {:?}", since.elapsed());
    found.with_context(|| format!("not {link_state}, {mirror_status:?} after {SHOWN_LIMIT:?}, but {last}"))
}
