//! What an operator does to a cluster while it runs: hand partition leadership back, change a
//! topic's config or a client's quota, see who leads and who is in sync.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::poll_until;
use crate::wire::{Api, Connection, Cursor, Metadata, PartitionMetadata, put_string};

const ELECT_LEADERS: Api = Api { name: "ElectLeaders", key: 43, version: 1 };
const INCREMENTAL_ALTER_CONFIGS: Api = Api { name: "IncrementalAlterConfigs", key: 44, version: 0 };
const ALTER_CLIENT_QUOTAS: Api = Api { name: "AlterClientQuotas", key: 49, version: 0 };

const CALL_LIMIT: Duration = Duration::from_secs(10);
/// The broker's own limit for an election, below ours for the call.
const ELECTION_LIMIT_MS: i32 = 5_000;
const POLL: Duration = Duration::from_millis(250);

const PREFERRED: i8 = 0;
const ELECTION_NOT_NEEDED: i16 = 84;
const RESOURCE_TOPIC: i8 = 2;
const OPERATION_SET: i8 = 0;

/// The partitions of one topic by number.
pub type Placement = BTreeMap<i32, PartitionMetadata>;

/// Who holds and who leads each partition, as the first broker that answers knows it. A broker held
/// by SIGSTOP costs a call's limit.
pub fn placement(bootstrap: &str, topic: &str) -> Result<Placement> {
    let metadata = with_broker(bootstrap, |connection| Metadata::fetch(connection, &[topic]))?;
    let found = metadata.topics.get(topic).with_context(|| format!("no answer about {topic}"))?;
    ensure!(found.error_code == 0, "topic {topic}: error {}", found.error_code);
    Ok(found.partitions.clone())
}

/// Waits until `wanted` holds for every partition; `what` names it in the failure.
pub fn wait_placement(
    bootstrap: &str,
    topic: &str,
    limit: Duration,
    what: &str,
    wanted: impl Fn(i32, &PartitionMetadata) -> bool,
) -> Result<Placement> {
    let mut last = Ok(Placement::new());
    let found = poll_until(limit, POLL, || {
        last = placement(bootstrap, topic);
        let found = last.as_ref().ok()?;
        found.iter().all(|(number, partition)| wanted(*number, partition)).then(|| found.clone())
    });
    found.with_context(|| format!("{topic} after {limit:?}: not {what}; last seen: {last:?}"))
}

/// Preferred leader election; returns how many partitions got another leader.
pub fn elect_preferred_leaders(bootstrap: &str, topic: &str, partitions: &[i32]) -> Result<usize> {
    let mut body = vec![PREFERRED.cast_unsigned()];
    body.extend(1i32.to_be_bytes());
    put_string(&mut body, Some(topic));
    body.extend(i32::try_from(partitions.len()).context("too many partitions")?.to_be_bytes());
    partitions.iter().for_each(|partition| body.extend(partition.to_be_bytes()));
    body.extend(ELECTION_LIMIT_MS.to_be_bytes());

    let answer = with_broker(bootstrap, |connection| connection.call(ELECT_LEADERS, &body))?;
    let mut cursor = Cursor::new(&answer);
    cursor.i32()?; // throttle_time_ms
    check(cursor.i16()?, ELECT_LEADERS, None)?;
    let results = cursor.list(|cursor| {
        cursor.string()?; // topic
        cursor.list(|cursor| Ok((cursor.i32()?, cursor.i16()?, cursor.string()?)))
    })?;
    let mut moved = 0;
    for (partition, code, message) in results.into_iter().flatten() {
        if code != ELECTION_NOT_NEEDED {
            check(code, ELECT_LEADERS, message).with_context(|| format!("{topic}-{partition}"))?;
            moved += 1;
        }
    }
    Ok(moved)
}

/// Sets one config of a topic and leaves the others alone.
pub fn set_topic_config(bootstrap: &str, topic: &str, key: &str, value: &str) -> Result<()> {
    let mut body = Vec::new();
    body.extend(1i32.to_be_bytes());
    body.push(RESOURCE_TOPIC.cast_unsigned());
    put_string(&mut body, Some(topic));
    body.extend(1i32.to_be_bytes());
    put_string(&mut body, Some(key));
    body.push(OPERATION_SET.cast_unsigned());
    put_string(&mut body, Some(value));
    body.push(0); // validate_only

    let answer = with_broker(bootstrap, |connection| connection.call(INCREMENTAL_ALTER_CONFIGS, &body))?;
    let mut cursor = Cursor::new(&answer);
    cursor.i32()?; // throttle_time_ms
    let results = cursor.list(|cursor| {
        let (code, message) = (cursor.i16()?, cursor.string()?);
        cursor.i8()?; // resource_type
        cursor.string()?; // resource_name
        Ok((code, message))
    })?;
    for (code, message) in results {
        check(code, INCREMENTAL_ALTER_CONFIGS, message).with_context(|| format!("{topic}: {key}={value}"))?;
    }
    Ok(())
}

/// What producers of this client id may write a second, in bytes, on each broker.
pub fn set_producer_quota(bootstrap: &str, client_id: &str, bytes_per_second: f64) -> Result<()> {
    let mut body = Vec::new();
    body.extend(1i32.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    put_string(&mut body, Some("client-id"));
    put_string(&mut body, Some(client_id));
    body.extend(1i32.to_be_bytes());
    put_string(&mut body, Some("producer_byte_rate"));
    body.extend(bytes_per_second.to_be_bytes());
    body.push(0); // remove
    body.push(0); // validate_only

    let answer = with_broker(bootstrap, |connection| connection.call(ALTER_CLIENT_QUOTAS, &body))?;
    let mut cursor = Cursor::new(&answer);
    cursor.i32()?; // throttle_time_ms
    let results = cursor.list(|cursor| {
        let (code, message) = (cursor.i16()?, cursor.string()?);
        cursor.list(|cursor| Ok((cursor.string()?, cursor.string()?)))?; // the entity
        Ok((code, message))
    })?;
    ensure!(!results.is_empty(), "no answer about the quota of {client_id}");
    for (code, message) in results {
        check(code, ALTER_CLIENT_QUOTAS, message).with_context(|| format!("quota of {client_id}"))?;
    }
    Ok(())
}

/// Asks the first broker that answers; what only the controller does, a broker passes on to it.
fn with_broker<T>(bootstrap: &str, mut ask: impl FnMut(&mut Connection) -> Result<T>) -> Result<T> {
    let mut failure = anyhow::anyhow!("no bootstrap address given");
    for part in bootstrap.split(',') {
        let address: SocketAddr = part.parse().with_context(|| format!("{part:?} is not an address"))?;
        match Connection::open(address, CALL_LIMIT).and_then(|mut connection| ask(&mut connection)) {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn check(code: i16, api: Api, message: Option<String>) -> Result<()> {
    if code != 0 {
        bail!("{} answers error {code}: {}", api.name, message.unwrap_or_default());
    }
    Ok(())
}
