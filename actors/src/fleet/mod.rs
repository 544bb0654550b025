//! A node's part in its fleet: it reports that it is there, holds a lease, and coordinates while it is
//! Raft leader.
//!
//! - [`reporter`]: tells the coordinator and takes its answers. [`report`]: what they say, as bytes.
//! - [`coordinator`]: hears the reports, has plans carried out. [`presence`]: who is there, [`rates`]:
//!   what partitions carry, as values.
//! - [`changes`]: which partitions have just changed hands; every node knows.
//! - [`lease`]: the right to append what no broker guards.
//! - [`release`]: partitions that have stopped here for others.
//!
//! Who may write is the catalog's: nothing here starts or stops a mirror.

pub mod changes;
pub mod coordinator;
pub mod lease;
pub mod presence;
pub mod rates;
pub mod release;
pub mod report;
pub mod reporter;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use catalog::{NodeId, codec};
use peers::Call;

use crate::catalog_port::CatalogPort;
use crate::clock::Uptime;
use crate::observe::Observatory;

use coordinator::Coordinator;
use lease::LeaseKeeper;
use report::{Answer, Reason, Request};
use reporter::Reporter;

/// Three reports: the others have been heard of by then, and the answer to one's own has come.
const COMPANY_WAIT: Duration = Duration::from_millis(1_200);
const COMPANY_LOOK: Duration = Duration::from_millis(50);

/// Handle to a node's part in its fleet.
#[derive(Clone)]
pub struct Member {
    port: Arc<dyn CatalogPort>,
    coordinator: Arc<Coordinator>,
    reporter: Arc<Reporter>,
    lease: Arc<LeaseKeeper>,
    others: Arc<Mutex<u32>>,
}

impl Member {
    pub fn new(
        port: Arc<dyn CatalogPort>,
        clock: Uptime,
        peers: Arc<dyn Call>,
        lease: Arc<LeaseKeeper>,
        observatory: Arc<Observatory>,
    ) -> Self {
        let coordinator = Arc::new(Coordinator::new(port.clone(), clock.clone()));
        let others = Arc::default();
        let reporter = Reporter {
            port: port.clone(),
            clock,
            peers,
            coordinator: coordinator.clone(),
            lease: lease.clone(),
            observatory,
            others: Arc::clone(&others),
        };
        follow(&*port, &lease);
        Self { port, coordinator, reporter: Arc::new(reporter), lease, others }
    }

    /// Runs until it is dropped, or consensus stops. It must be on time: whoever is late with its
    /// reports counts as lost.
    pub async fn run(self) {
        tokio::select! {
            () = self.reporter.run() => {}
            () = self.coordinator.run() => {}
            () = self.follow_applied() => {}
        }
    }

    async fn follow_applied(&self) {
        let mut applied = self.port.watch();
        loop {
            applied.mark_unchanged();
            follow(&*self.port, &self.lease);
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    /// Answers a call that another member made to [`peers::Service::Fleet`].
    pub fn serve(&self, from: NodeId, request: &[u8]) -> Bytes {
        let answer = match codec::decode(request) {
            Ok(Request::Report(report)) => self.coordinator.heard(from, report),
            Err(error) => Answer::NoLease(Reason::Malformed(error.to_string())),
        };
        answer.encode().into()
    }

    /// Waits until somebody is there who may take partitions; false when nobody is for so long that they
    /// must have been heard of. A coordinator that has just begun knows of nobody yet.
    pub async fn has_company(&self) -> bool {
        let deadline = tokio::time::Instant::now() + COMPANY_WAIT;
        while !self.has_others() {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(COMPANY_LOOK).await;
        }
        true
    }

    /// Whether anybody was there lately who may take partitions.
    pub fn has_others(&self) -> bool {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) > 0
    }
}

fn follow(port: &dyn CatalogPort, lease: &LeaseKeeper) {
    let (index, alone) = {
        let watch = port.watch();
        let applied = watch.borrow();
        let nodes = &applied.catalog.nodes;
        (applied.index, nodes.len() == 1 && nodes.contains_key(&port.node()))
    };
    lease.applied(index, alone);
}
