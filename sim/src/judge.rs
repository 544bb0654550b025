//! Hears what happens in a simulation and holds it against the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::observe::PartitionView;
use broker::{Partition, State as Cluster};
use catalog::NodeId;
use consensus::Applied;

use crate::asked::Asked;
use crate::batches::Stored;
use crate::disk::Life;
use crate::history::{History, Key, Past};
use crate::invariants::{self, Invariant};
use crate::mirrors::Mirrors;
use crate::options::Memory;
use crate::stops::Stopped;
use crate::struck::Struck;

/// What the simulation sees. Invariants take what concerns them.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Nothing is under way any more; the catalog holds all that was acknowledged.
    Settled(&'a Applied),
    /// The applied catalog as it is now.
    Applied(&'a Applied),
    /// The operator is about to ask for something.
    Asking,
    /// For this; one at a time.
    Submitting(&'a Asked),
    /// It was taken; the catalog as applied since by the process that said so, unless that is gone.
    Acknowledged(Option<&'a Applied>),
    /// It wasn't, and can't be: with what code, and why.
    Refused(u64, &'a str),
    /// It wasn't proposed at all.
    NotProposed,
    /// What the API lists of mirrors, as [`crate::asked::mirror`] names them.
    Listed(&'a BTreeSet<String>),
    /// The applied catalog of whichever node is furthest, and nodes that nothing has been in the way of.
    Owners(&'a Applied, &'a BTreeSet<NodeId>),
    /// Both clusters' logs as they are now.
    Logs(&'a Logs<'a>),
    /// What the node shows now.
    Shown(&'a Shown<'a>),
    /// After the quiet time.
    End(&'a Logs<'a>, &'a Shown<'a>),
}

#[derive(Clone, Copy, Debug)]
pub struct Logs<'a> {
    pub source: &'a Cluster,
    pub destination: &'a Cluster,
    pub mirrors: &'a Mirrors,
    pub history: &'a History,
    pub struck: &'a Struck,
    pub stopped: &'a Stopped,
    /// Since the simulation began.
    pub at: Duration,
}

/// One partition of a mirror topic at the destination.
pub struct Image<'a> {
    pub key: Key,
    pub partition: &'a Partition,
    pub source: &'a Past,
    /// Here it ends as a mirror: where its log does, or its fence begins.
    pub end: i64,
}

impl Image<'_> {
    /// Nobody compresses here but the product, what isn't a record. Such a batch may only stand below a log
    /// start that the source had.
    pub fn may_be_filler(&self, stored: &Stored) -> bool {
        stored.is_compressed() && stored.last_offset < self.source.highest_start()
    }
}

impl<'a> Logs<'a> {
    /// All that must be images of their sources: topics that are there, and whose brokers lost nothing.
    pub fn images(&self) -> impl Iterator<Item = Image<'a>> {
        let Self { destination, mirrors, history, struck, .. } = *self;
        mirrors.iter().flat_map(move |(name, mirror)| {
            let partitions = destination.topic(name).map(|topic| &topic.partitions).into_iter().flatten();
            (0..).zip(partitions).filter_map(move |(index, partition)| {
                let source = history.of(&mirror.source_topic, index)?;
                let key = (name.to_string(), index);
                let end = mirror.fence(index).unwrap_or(partition.log.end());
                let is_judged = !struck.is_unclean_mirror(name, index);
                is_judged.then_some(Image { key, partition, source, end })
            })
        })
    }
}

/// What one node shows; at the end, all of them.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    pub applied: &'a Applied,
    pub rows: &'a [Row],
    /// State by link's name.
    pub links: &'a BTreeMap<String, &'static str>,
    /// Bytes between fetch and acknowledgement, by link's name, as the product counts them.
    pub credit_in_use: &'a BTreeMap<String, usize>,
    /// What it may hold.
    pub memory: Memory,
    pub mirrors: &'a Mirrors,
    pub history: &'a History,
    pub struck: &'a Struck,
}

/// What the node shows of one mirror partition.
#[derive(Clone, Debug)]
pub struct Row {
    /// The place of the node that shows it.
    pub node: usize,
    /// That node is the owner.
    pub is_owned: bool,
    pub link: String,
    pub key: Key,
    /// Of its assignment in the catalog.
    pub assignment_epoch: u64,
    pub view: PartitionView,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Judge(Arc<Mutex<State>>);

/// Speaks for one process: what that says after its end isn't heard.
pub struct Witness {
    pub judge: Judge,
    pub life: Life,
}

impl Witness {
    pub fn see(&self, seen: Seen<'_>) {
        if !self.life.is_over() {
            self.judge.see(seen);
        }
    }
}

struct State {
    invariants: Vec<Box<dyn Invariant>>,
    /// The first violation; nothing is judged after it.
    violation: Option<String>,
}

impl Judge {
    pub fn of_all() -> Self {
        Self(Arc::new(Mutex::new(State { invariants: invariants::all(), violation: None })))
    }

    pub fn see(&self, seen: Seen<'_>) {
        let mut state = self.state();
        let State { invariants, violation } = &mut *state;
        for invariant in invariants {
            if violation.is_some() {
                return;
            }
            if let Err(why) = invariant.see(seen) {
                let id = invariant.id();
                tracing::error!("{id} is violated: {why}");
                *violation = Some(format!("{id} is violated: {why}"));
            }
        }
    }

    pub fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
