//! What a node tells the coordinator, and what it answers: values and their bytes.
//!
//! A report says only what has changed: at rest it is a few bytes long.

use catalog::{NodeId, PartitionKey, codec};
use serde::{Deserialize, Serialize};

/// Requests between node and coordinator. New kinds go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Report(Report),
}

/// I am here, and ask for a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which start of the node's process this is.
    pub starts: u64,
    /// What is applied here.
    pub applied: u64,
    /// Mirror partitions that run here.
    pub running: u32,
    /// Bytes per second of partitions that carry much more or less than was last said.
    pub rates: Vec<(PartitionKey, u64)>,
}

/// New kinds go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Lease {
        /// What the coordinator had applied: the lease counts once that is applied at the node.
        applied: u64,
        /// Other members that are live and may take partitions.
        others: u32,
    },
    NoLease(Reason),
}

/// Why a report was answered without a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Reason {
    #[error("this node isn't the coordinator (yet)")]
    NotCoordinator,
    #[error("node {0} is no member of the fleet")]
    NotMember(NodeId),
    #[error("start {reported} of this node isn't its last one ({last})")]
    OtherStart { reported: u64, last: u64 },
    #[error("partitions of this node are being given to others")]
    BeingTakenOver,
    #[error("the request can't be read: {0}")]
    Malformed(String),
    #[error(
        "only {applied} is applied here, and {needed} had been a while ago: the Raft leader doesn't reach this node"
    )]
    Behind { applied: u64, needed: u64 },
}

impl Request {
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_at_rest_is_a_few_bytes() {
        let report = Report { starts: 3, applied: 70_000, running: 20_000, rates: Vec::new() };
        let bytes = Request::Report(report.clone()).encode();
        assert!(bytes.len() <= 16, "{} bytes", bytes.len());
        assert_eq!(codec::decode::<Request>(&bytes).expect("readable"), Request::Report(report));
        assert!(Answer::Lease { applied: 70_000, others: 2 }.encode().len() <= 16);
    }
}
