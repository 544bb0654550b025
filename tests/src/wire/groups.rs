//! Positions of groups, asked of and told to their coordinator by a connection that stands: thousands a second.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::connection::{Api, Connection};
use super::cursor::{Cursor, put_string};

const OFFSET_COMMIT: Api = Api { name: "OffsetCommit", key: 8, version: 2 };
const OFFSET_FETCH: Api = Api { name: "OffsetFetch", key: 9, version: 1 };

const NO_GENERATION: i32 = -1;
const DEFAULT_RETENTION: i64 = -1;

/// Puts a group without members to the same offset in partitions `0..partitions`.
pub fn commit(
    connection: &mut Connection,
    group: &str,
    topic: &str,
    partitions: i32,
    offset: i64,
) -> Result<()> {
    let mut body = Vec::new();
    put_string(&mut body, Some(group));
    body.extend(NO_GENERATION.to_be_bytes());
    put_string(&mut body, Some("")); // member_id
    body.extend(DEFAULT_RETENTION.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    put_string(&mut body, Some(topic));
    body.extend(partitions.to_be_bytes());
    for partition in 0..partitions {
        body.extend(partition.to_be_bytes());
        body.extend(offset.to_be_bytes());
        put_string(&mut body, None); // metadata
    }
    let answer = connection.call(OFFSET_COMMIT, &body)?;
    let answered = Cursor::new(&answer).list(|topic| {
        topic.string()?;
        topic.list(|partition| Ok((partition.i32()?, partition.i16()?)))
    })?;
    for (partition, code) in answered.into_iter().flatten() {
        ensure!(code == 0, "OffsetCommit of {group} in {topic}[{partition}]: error {code}");
    }
    Ok(())
}

/// Where a group stands in partitions `0..partitions`; −1 where it has no position.
pub fn positions(
    connection: &mut Connection,
    group: &str,
    topic: &str,
    partitions: i32,
) -> Result<BTreeMap<i32, i64>> {
    let mut body = Vec::new();
    put_string(&mut body, Some(group));
    body.extend(1_i32.to_be_bytes());
    put_string(&mut body, Some(topic));
    body.extend(partitions.to_be_bytes());
    (0..partitions).for_each(|partition| body.extend(partition.to_be_bytes()));
    let answer = connection.call(OFFSET_FETCH, &body)?;
    let found = Cursor::new(&answer).list(|topic| {
        topic.string()?;
        topic.list(|partition| {
            let (index, offset) = (partition.i32()?, partition.i64()?);
            partition.string()?; // metadata
            ensure!(partition.i16()? == 0, "OffsetFetch of {group}");
            Ok((index, offset))
        })
    })?;
    Ok(found.into_iter().flatten().collect())
}
