//! The bytes on disk. A change here is a new store format: it must come with a way to read the
//! old one, whether it came from us or with a new openraft.

use std::collections::BTreeMap;
use std::fmt::Debug;

use catalog::{Action, Command, codec};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Identity;
use crate::raft::{Entry, LogId, Membership, SnapshotMeta, Vote};

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, bytes: &[u8]) {
    assert_eq!(codec::encode(value), bytes, "{value:?}");
    assert_eq!(codec::decode::<T>(bytes).expect("readable"), *value);
}

fn log_id() -> LogId {
    LogId::new(CommittedLeaderId::new(3, 7), 300)
}

fn members() -> openraft::Membership<u64, BasicNode> {
    openraft::Membership::new(vec![[7].into()], BTreeMap::from([(7, BasicNode::new("a"))]))
}

#[test]
fn identity_vote_and_positions_keep_their_bytes() {
    check(&Identity { node_id: 7, node_name: "ab".into() }, &[1, 7, 2, b'a', b'b']);
    // Term, node, committed.
    check(&Vote::new(3, 7), &[1, 3, 7, 0]);
    check(&Vote::new_committed(3, 7), &[1, 3, 7, 1]);
    // Term, node, index (251 begins a two-byte integer).
    check(&log_id(), &[1, 3, 7, 251, 44, 1]);
    check(&Some(log_id()), &[1, 1, 3, 7, 251, 44, 1]);
    check(&None::<LogId>, &[1, 0]);
}

#[test]
fn entries_keep_their_bytes() {
    let head = [1, 3, 7, 251, 44, 1];
    let entry = |payload| Entry { log_id: log_id(), payload };
    let bytes = |tail: &[u8]| [&head, tail].concat();
    check(&entry(EntryPayload::Blank), &bytes(&[0]));
    let command = Command { at_ms: 5, action: Action::DeleteCluster { name: "c".into() } };
    check(&entry(EntryPayload::Normal(command)), &bytes(&[1, 10, 3, 1, b'c']));
    // One set of voters: 7. One node: 7, at address "a".
    check(&entry(EntryPayload::Membership(members())), &bytes(&[2, 1, 1, 7, 1, 7, 1, b'a']));
}

#[test]
fn a_snapshots_description_keeps_its_bytes() {
    let meta = SnapshotMeta {
        last_log_id: Some(log_id()),
        last_membership: Membership::new(Some(log_id()), members()),
        snapshot_id: "s".into(),
    };
    let position = [1, 3, 7, 251, 44, 1];
    let bytes = [&[1], &position[..], &position, &[1, 1, 7, 1, 7, 1, b'a'], &[1, b's']].concat();
    check(&meta, &bytes);
}
