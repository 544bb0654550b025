//! Links, and a catalog of one node, as tests need them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::catalog_port::{CatalogPort, ChangeFuture, ReadFuture, SubmitFuture};
use crate::clock::Uptime;
use catalog::model::MirrorPartition;
use catalog::voters::{Change, Members};
use catalog::{
    Action, Assignment, Command, Link, LinkId, MirrorStatus, MirrorTopic, NodeId, ProducerIdentity, TopicId,
};
use consensus::{Applied, Status};
use tokio::sync::watch;

/// The node that a [`FakeCatalog`] is on.
pub const HERE: NodeId = NodeId(1);

/// An active link from somewhere to west, with these mirror topics.
pub fn link(topics: &[(&str, Vec<MirrorPartition>)]) -> Link {
    let mirror = |(name, partitions): &(&str, Vec<MirrorPartition>)| MirrorTopic {
        name: (*name).into(),
        source_topic: (*name).into(),
        source_topic_id: TopicId([7; 16]),
        destination_topic_id: TopicId([8; 16]),
        replication_factor: None,
        configs: BTreeMap::new(),
        status: MirrorStatus::Active,
        status_since_ms: 0,
        producer: Some(ProducerIdentity { producer_id: 1, producer_epoch: 0 }),
        stop: None,
        partitions: partitions.clone(),
        history: Default::default(),
    };
    Link {
        id: LinkId("l".into()),
        name: "l".into(),
        destination: "west".into(),
        source: None,
        source_cluster_id: "a".into(),
        destination_cluster_id: "b".into(),
        configs: BTreeMap::new(),
        mirrors: topics.iter().map(|topic| (topic.0.into(), Arc::new(mirror(topic)))).collect(),
    }
}

pub fn owned_by(node: NodeId, unclean: bool) -> MirrorPartition {
    MirrorPartition { assignment: Some(Assignment { node, epoch: 1, unclean }), ..MirrorPartition::default() }
}

/// An uptime clock that stands still until it is set.
#[derive(Clone, Default)]
pub struct SetClock(Arc<AtomicU64>);

impl SetClock {
    pub fn set(&self, now: Duration) {
        self.0.store(now.as_millis() as u64, Ordering::Relaxed);
    }
}

pub fn clock() -> (SetClock, Uptime) {
    let clock = SetClock::default();
    let read = clock.clone();
    (clock, Uptime::new(move || Duration::from_millis(read.0.load(Ordering::Relaxed))))
}

/// Applies what is submitted at once.
pub struct FakeCatalog(pub watch::Sender<Arc<Applied>>);

impl CatalogPort for FakeCatalog {
    fn node(&self) -> NodeId {
        HERE
    }

    fn watch(&self) -> watch::Receiver<Arc<Applied>> {
        self.0.subscribe()
    }

    fn read(&self) -> ReadFuture<'_> {
        Box::pin(async { unreachable!("nothing is read here") })
    }

    fn status(&self) -> Status {
        unreachable!("nobody asks who leads")
    }

    fn members(&self) -> Option<Members> {
        None
    }

    fn change(&self, _: Change) -> ChangeFuture<'_> {
        unreachable!("nobody changes who votes")
    }

    fn submit(&self, action: Action) -> SubmitFuture<'_> {
        let mut applied = Applied::clone(&self.0.borrow());
        let outcome = applied.catalog.apply(Command { at_ms: 1, action });
        self.0.send_replace(Arc::new(applied));
        Box::pin(async { outcome.map_err(consensus::SubmitError::Refused) })
    }
}
