//! Tells the coordinator every few hundred milliseconds that this node is there, and takes the lease
//! that it answers with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catalog::{NodeId, codec};
use peers::{Call, Service};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::coordinator::Coordinator;
use super::lease::{Grant, LeaseKeeper};
use super::rates::Measured;
use super::report::{Answer, Report, Request};
use crate::catalog_port::CatalogPort;
use crate::clock::Uptime;
use crate::observe::Observatory;

/// Five in the time after which a node is lost.
pub const REPORT_EVERY: Duration = Duration::from_millis(400);

/// An answer that comes later hardly extends the lease.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Reports under way: a slow answer doesn't hold back the next report.
const UNDER_WAY_MAX: usize = 3;

pub struct Reporter {
    pub port: Arc<dyn CatalogPort>,
    pub clock: Uptime,
    pub peers: Arc<dyn Call>,
    pub coordinator: Arc<Coordinator>,
    pub lease: Arc<LeaseKeeper>,
    pub observatory: Arc<Observatory>,
    /// Other live members that may take partitions, as last heard.
    pub others: Arc<Mutex<u32>>,
}

impl Reporter {
    /// Runs until it is dropped.
    pub async fn run(&self) {
        let mut measured = Measured::default();
        let mut under_way = JoinSet::new();
        let mut told: Option<(NodeId, u64)> = None;
        let mut running = 0;
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut is_lost = false;
            while let Some(done) = under_way.try_join_next() {
                is_lost |= !done.unwrap_or(false);
            }
            let status = self.port.status();
            let leader = status.leader.map(|leader| (leader, status.term));
            if is_lost || leader != told {
                measured.forget_told();
                told = leader;
            }
            let now = self.clock.now();
            if measured.is_due(now) {
                measured.count(now, self.observatory.appended_bytes());
                running = self.observatory.running();
            }
            let Some((leader, _)) = leader.filter(|_| under_way.len() < UNDER_WAY_MAX) else { continue };
            let applied = self.port.applied();
            let node = self.port.node();
            let Some(starts) = applied.catalog.nodes.get(&node).map(|node| node.starts) else { continue };
            let report = Report { starts, applied: applied.index, running, rates: measured.to_tell() };
            if leader == node {
                let answer = self.coordinator.heard(node, report);
                take(&self.lease, &self.others, answer, now);
            } else {
                under_way.spawn(self.ask(leader, &Request::Report(report), now));
            }
        }
    }

    /// True when the coordinator has taken the report.
    fn ask(&self, leader: NodeId, request: &Request, now: Duration) -> impl Future<Output = bool> + use<> {
        let call = self.peers.call(leader, Service::Fleet, request.encode().into(), ANSWER_WITHIN);
        let (lease, others) = (self.lease.clone(), self.others.clone());
        async move {
            let answer = match call.await {
                Ok(bytes) => codec::decode::<Answer>(&bytes).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match answer {
                Ok(answer) => take(&lease, &others, answer, now),
                Err(error) => {
                    tracing::debug!(coordinator = %leader, error, "no answer to a report");
                    false
                }
            }
        }
    }
}

fn take(lease: &LeaseKeeper, others: &Mutex<u32>, answer: Answer, asked_at: Duration) -> bool {
    match answer {
        Answer::Lease { applied, others: live } => {
            lease.granted(Grant { applied, asked_at });
            *others.lock().unwrap_or_else(PoisonError::into_inner) = live;
            true
        }
        Answer::NoLease(reason) => {
            tracing::debug!(%reason, "no lease");
            false
        }
    }
}
