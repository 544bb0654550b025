//! `lockstep verify`: says equal of what is equal, names the first difference of what isn't, and
//! ends when a cluster doesn't answer. Over TLS, mutual TLS and a login, as the mirror itself.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::client::{
    Batching, add_partitions, delete_records, write_records, write_transaction, write_values,
};
use tests::load::{Load, LoadConfig, PROFILES, create_topic};
use tests::mirror::wait_caught_up;
use tests::node::{Node, Said};
use tests::poll_until;
use tests::scenario::Scenario;
use tests::secured::{SCRAM_USER, SecuredKafka};
use tests::wire::RawReader;

const LINK: &str = "east-west";
const WEST: &str = "west";
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);
const PAUSED_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// Mirrored by the product: three partitions under load, one that stays empty.
const ORDERS: &str = "orders";
const ORDERS_PARTITIONS: i32 = 4;
const LOADED: i32 = 3;
const EMPTY: i32 = 3;
const RECORDS_PER_SECOND: u32 = 1_000;
const RECORDS: u64 = 3_000;
/// Deleted at the source before its mirror began.
const CUT: (i32, i64) = (1, 20);
/// Deleted at the mirror alone.
const RETAINED: (i32, i64) = (0, 50);
const FOREIGN: i32 = 2;

/// Created by the product while empty, then written by hand at both ends.
const LEDGER: &str = "ledger";
const LEDGER_PARTITIONS: i32 = 4;
/// In partition 0, one byte of one record.
const WRONG_OFFSET: usize = 123;
const WRONG_BYTE: usize = 321;
const VALUE_BYTES: usize = 1_000;
const VALUES: usize = 200;
/// Stands in every record and must never be shown.
const CONFIDENTIAL: &str = "confidential";

/// The partitions under load take about three seconds each.
const SLOW_BYTES_PER_SECOND: &str = "700000";
/// Of a cluster that doesn't answer.
const TIMEOUT: &str = "3s";
/// Above it, for what was read ahead.
const SILENT_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn verify_says_equal_of_equal_ends_and_names_the_first_difference_of_others() {
    Scenario::run("verify", |scenario| {
        let directory = scenario.directory();
        let password = directory.join("password");
        fs::write(&password, SCRAM_USER.1)?;
        let east = SecuredKafka::start("east", directory)?;
        let mut west = SecuredKafka::start(WEST, directory)?;
        let mut node = Node::bootstrap("node-1", directory)?;
        create_topic(&east.cluster.bootstrap(), ORDERS, ORDERS_PARTITIONS, &[])?;
        create_topic(&east.cluster.bootstrap(), LEDGER, LEDGER_PARTITIONS, &[])?;
        write_records(&east.cluster.bootstrap(), ORDERS, CUT.0, 100, Batching::Single)?;
        delete_records(&east.cluster.bootstrap(), ORDERS, &[CUT])?;
        register(&node, "east", &east.login_properties(&password, directory)?)?;
        register(&node, WEST, &west.certificate_properties(directory)?)?;
        node.cli(&["link", "create", LINK, "--source", "east", "--destination", WEST])?;
        node.cli(&["mirror", "create", ORDERS, "--link", LINK])?;
        node.cli(&["mirror", "create", LEDGER, "--link", LINK])?;

        check_live_mirror(scenario, &mut node, &east, &west)?;
        pause(&node)?;
        check_retention(&node, &west)?;
        check_foreign_record(&node, &east, &west)?;
        check_ledger(&node, &east, &west)?;
        check_wrong_password(&node, &password)?;
        check_silence(&node, &mut west)?;
        node.sigterm()
    });
}

/// While the mirror runs behind its source, and when it has caught up.
fn check_live_mirror(
    scenario: &Scenario,
    node: &mut Node,
    east: &SecuredKafka,
    west: &SecuredKafka,
) -> Result<()> {
    let load = Load::start(&LoadConfig {
        bootstrap: east.cluster.bootstrap(),
        topic: ORDERS.to_owned(),
        partitions: LOADED,
        profiles: PROFILES.to_vec(),
        records_per_second: RECORDS_PER_SECOND,
        seed: scenario.seed(),
        age: Duration::ZERO,
    })?;
    load.wait_acknowledged(RECORDS, CATCH_UP_LIMIT)?;
    let report = equal(node, &[ORDERS])?;
    let live = total(&report, "records")?;
    ensure!(live > 0, "nothing was compared while the mirror ran: {report:#}");
    load.stop()?;

    wait_caught_up(node, &east.cluster, &west.cluster, (LINK, ORDERS), CATCH_UP_LIMIT)?;
    let report = equal(node, &[ORDERS, "--all"])?;
    let ends = RawReader::new(&east.cluster.bootstrap())?.ends(ORDERS)?;
    for (partition, (start, end)) in &ends {
        let row = row(&report, ORDERS, *partition)?;
        ensure!(
            (&row["from_offset"], &row["to_offset"], &row["records"])
                == (&(*start).into(), &(*end).into(), &(end - start).into()),
            "partition {partition} holds {start} to {end}: {row:#}"
        );
    }
    let records = total(&report, "records")?;
    eprintln!("equal: {live} records while live, then {records} of {} bytes", total(&report, "bytes")?);
    ensure!(ends[&CUT.0].0 == CUT.1 && ends[&EMPTY] == (0, 0), "not the ends that were meant: {ends:?}");

    let report = equal(node, &[ORDERS, "--last", "10"])?;
    ensure!(total(&report, "records")? == 10 * i64::from(LOADED), "the last 10 of each: {report:#}");
    Ok(())
}

/// No look of the product at either end from here on.
fn pause(node: &Node) -> Result<()> {
    node.cli(&["mirror", "pause", ORDERS, LEDGER, "--link", LINK])?;
    let paused = |topic: &str| {
        let mirror = node.mirror_json(WEST, LINK, topic)?;
        Ok::<_, anyhow::Error>(mirror["mirror_status"] == "PAUSED")
    };
    poll_until(PAUSED_LIMIT, POLL, || (paused(ORDERS).ok()? && paused(LEDGER).ok()?).then_some(()))
        .with_context(|| format!("not paused after {PAUSED_LIMIT:?}"))
}

/// Ends of logs may differ; what both hold must not.
fn check_retention(node: &Node, west: &SecuredKafka) -> Result<()> {
    delete_records(&west.cluster.bootstrap(), ORDERS, &[RETAINED])?;
    let report = equal(node, &[ORDERS])?;
    let row = row(&report, ORDERS, RETAINED.0)?;
    ensure!(row["from_offset"] == RETAINED.1, "{row:#}");
    ensure!(row["notes"][0].as_str().is_some_and(|note| note.contains("starts at 50")), "{row:#}");
    Ok(())
}

/// First the mirror goes on alone; then the source has another record at the same offset.
fn check_foreign_record(node: &Node, east: &SecuredKafka, west: &SecuredKafka) -> Result<()> {
    let foreign = write_records(&west.cluster.bootstrap(), ORDERS, FOREIGN, 1, Batching::Single)?.start;
    let said = different(node, &[ORDERS])?;
    let line =
        format!("orders, partition {FOREIGN}: first difference: offset {foreign}: the source's log ends");
    ensure!(said.stdout.contains(&line), "not {line:?} in {}", said.stdout);
    ensure!(said.stderr.contains("1 of 4 partitions differ"), "{}", said.stderr);

    let own = write_records(&east.cluster.bootstrap(), ORDERS, FOREIGN, 1, Batching::Single)?.start;
    ensure!(own == foreign, "the source's next offset is {own}, the mirror's {foreign}");
    let said = different(node, &[ORDERS])?;
    let line = format!("orders, partition {FOREIGN}: first difference: offset {foreign}: timestamp: ");
    ensure!(said.stdout.contains(&line), "not {line:?} in {}", said.stdout);
    Ok(())
}

/// One byte, offsets without a record at both ends and at one, a partition too many.
fn check_ledger(node: &Node, east: &SecuredKafka, west: &SecuredKafka) -> Result<()> {
    // Not older, or retention would empty one end before the other.
    let timestamp_ms = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
    let (source, mirror) = (east.cluster.bootstrap(), west.cluster.bootstrap());
    let values: Vec<Vec<u8>> = (0..VALUES).map(value).collect();
    let mut wrong = values.clone();
    wrong[WRONG_OFFSET][WRONG_BYTE] ^= 1;
    let write = |bootstrap: &str, partition, values: &[Vec<u8>]| {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        write_values(bootstrap, LEDGER, partition, &values, timestamp_ms)
    };
    let transaction = |bootstrap: &str, partition| {
        let values: Vec<&[u8]> = values[..5].iter().map(Vec::as_slice).collect();
        write_transaction(bootstrap, LEDGER, partition, &values, timestamp_ms)
    };
    write(&source, 0, &values)?;
    write(&mirror, 0, &wrong)?;
    // A marker in the middle, and one at the end.
    for bootstrap in [&source, &mirror] {
        transaction(bootstrap, 1)?;
        write(bootstrap, 1, &values[..5])?;
        transaction(bootstrap, 1)?;
    }
    transaction(&source, 2)?;
    write(&mirror, 2, &values[..6])?;
    add_partitions(&mirror, LEDGER, LEDGER_PARTITIONS as usize + 1)?;

    let said = different(node, &[LEDGER, "-o", "json"])?;
    let report: Value = serde_json::from_str(&said.stdout).context("read the report")?;
    let [wrong, holes, hole, extra] = [0, 1, 2, LEDGER_PARTITIONS].map(|p| row(&report, LEDGER, p));
    let (wrong, holes, hole, extra) = (wrong?, holes?, hole?, extra?);
    ensure!(wrong["difference"]["offset"] == WRONG_OFFSET, "{wrong:#}");
    let field = &wrong["difference"]["fields"][0];
    ensure!(
        (&field["field"], &field["first_differing_byte"]) == (&"value".into(), &WRONG_BYTE.into()),
        "{wrong:#}"
    );
    ensure!(field["source"]["bytes"] == VALUE_BYTES && field["source"] != field["mirror"], "{wrong:#}");
    ensure!(holes["result"] == "EQUAL", "{holes:#}");
    ensure!((&holes["to_offset"], &holes["records"]) == (&17.into(), &15.into()), "{holes:#}");
    ensure!(hole["difference"]["kind"] == "ONLY_AT_MIRROR" && hole["difference"]["offset"] == 5, "{hole:#}");
    ensure!(extra["difference"]["kind"] == "PARTITION_ONLY_AT_MIRROR", "{extra:#}");

    let both = different(node, &[])?;
    let line = format!("ledger, partition 0: first difference: offset {WRONG_OFFSET}: value: 1000 bytes");
    ensure!(both.stdout.contains(&line), "not {line:?} in {}", both.stdout);
    for shown in [said.stdout, said.stderr, both.stdout, both.stderr] {
        ensure!(!shown.contains(CONFIDENTIAL), "shows what it read: {shown}");
    }
    Ok(())
}

fn value(number: usize) -> Vec<u8> {
    let text = format!("{CONFIDENTIAL} {number} ");
    text.bytes().cycle().take(VALUE_BYTES).collect()
}

/// Refused at once, and not after a timeout.
fn check_wrong_password(node: &Node, password: &Path) -> Result<()> {
    fs::write(password, "wrong-password")?;
    let started = Instant::now();
    let said = verify(node, &[ORDERS])?;
    fs::write(password, SCRAM_USER.1)?;
    ensure!(said.status.code() == Some(1), "{said:?}");
    ensure!(said.stderr.contains("source cluster 'east' can't be read"), "{}", said.stderr);
    ensure!(said.stderr.contains("SASL authentication error"), "{}", said.stderr);
    ensure!(
        !said.stderr.contains("wrong-password") && !said.stderr.contains(SCRAM_USER.1),
        "{}",
        said.stderr
    );
    ensure!(started.elapsed() < SILENT_LIMIT, "refused only after {:?}", started.elapsed());
    Ok(())
}

/// A broker that stops answering in the middle ends it, with the reason.
fn check_silence(node: &Node, west: &mut SecuredKafka) -> Result<()> {
    let started = Instant::now();
    verify(node, &[ORDERS])?;
    // Whatever a start takes on this machine now, twice that is after it.
    let begun = started.elapsed() * 2 + Duration::from_secs(1);
    let started = Instant::now();
    let said = std::thread::scope(|threads| {
        let slow = ["--max-bytes-per-second", SLOW_BYTES_PER_SECOND, "--timeout", TIMEOUT, ORDERS];
        let verify = threads.spawn(move || verify(node, &slow));
        std::thread::sleep(begun);
        west.cluster.pause(1)?;
        let said = verify.join().map_err(|_| anyhow::anyhow!("the thread of verify panicked"))?;
        west.cluster.resume(1)?;
        said
    })?;
    eprintln!("silent after {begun:?}: {}", said.stderr.trim());
    ensure!(said.status.code() == Some(1), "{said:?}");
    ensure!(said.stderr.contains("the destination cluster said nothing about "), "{}", said.stderr);
    ensure!(said.stdout.contains("equal") && said.stdout.contains("UNFINISHED"), "{}", said.stdout);
    ensure!(started.elapsed() < begun + SILENT_LIMIT, "ended only after {:?}", started.elapsed());
    Ok(())
}

fn register(node: &Node, name: &str, properties: &Path) -> Result<()> {
    let properties = properties.to_str().context("a path of UTF-8")?;
    node.cli(&["cluster", "create", name, "--config", properties]).map(drop)
}

fn verify(node: &Node, arguments: &[&str]) -> Result<Said> {
    let started = Instant::now();
    let said = node.cli_said(&[&["verify", "--link", LINK], arguments].concat())?;
    eprintln!("verify {arguments:?}: {:?} after {:?}", said.status.code(), started.elapsed());
    Ok(said)
}

/// Exit code 0; the report.
fn equal(node: &Node, arguments: &[&str]) -> Result<Value> {
    let said = verify(node, &[arguments, &["-o", "json"]].concat())?;
    ensure!(said.status.success(), "verify {arguments:?} ended with {said:?}");
    ensure!(said.stderr.starts_with("Equal: "), "{}", said.stderr);
    let report: Value = serde_json::from_str(&said.stdout).context("read the report")?;
    ensure!(report["result"] == "EQUAL", "{report:#}");
    Ok(report)
}

/// Exit code 1.
fn different(node: &Node, arguments: &[&str]) -> Result<Said> {
    let said = verify(node, arguments)?;
    ensure!(said.status.code() == Some(1), "verify {arguments:?} ended with {said:?}");
    Ok(said)
}

fn row<'a>(report: &'a Value, topic: &str, partition: i32) -> Result<&'a Value> {
    let rows = |topic: &'a Value| topic["partitions"].as_array().into_iter().flatten();
    let topics = report["topics"].as_array().into_iter().flatten();
    let found = topics.filter(|found| found["mirror_topic_name"] == topic).flat_map(rows);
    let mut found = found.filter(|row| row["partition"] == partition);
    found.next().with_context(|| format!("no row of {topic}-{partition} in {report:#}"))
}

/// Of one number, over all partitions.
fn total(report: &Value, name: &str) -> Result<i64> {
    let topics = report["topics"].as_array().context("no topics")?;
    let rows = topics.iter().flat_map(|topic| topic["partitions"].as_array().into_iter().flatten());
    let Some(sum) = rows.map(|row| row[name].as_i64()).sum() else { bail!("no {name}: {report:#}") };
    Ok(sum)
}
