//! The handle that the rest of the node holds: founding, opening, submitting, reading, stopping.
//!
//! Every wait in it has an end: submitting and reading by [`Options::submit_timeout`], opening
//! and stopping by the constants below.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use bytes::Bytes;
use catalog::{Action, NodeId, Outcome};
use openraft::error::{InitializeError, RaftError};
use openraft::{BasicNode, RaftMetrics, ServerState};
use redb::{Database, StorageBackend};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::campaign;
use crate::directory::DataDir;
use crate::error::{OpenError, SubmitError};
use crate::network::{Assembly, Calls, Ways};
use crate::options::{Clock, Entropy, Options};
use crate::raft::Raft;
use crate::runtime::drawing_from;
use crate::status::Leading;
use crate::store::{self, Applied, Failure, Founding, Identity, Machine, Store};

/// How long opening a group of one waits for its own leadership, which takes milliseconds. If it
/// takes longer the node starts all the same, and commands wait for the leader.
const READY_WAIT: Duration = Duration::from_secs(5);

/// How long stopping waits for the last write and the closing of the database.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Commands under way at once; more wait their turn. openraft's own queue has no bound.
const SUBMITS_IN_FLIGHT_MAX: usize = 1_024;

/// This node's part in the Raft group. Cheap to clone. Dropping the last one stops it without
/// waiting; [`Consensus::shutdown`] waits until the data directory is free.
#[derive(Clone)]
pub struct Consensus {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) raft: Raft,
    pub(crate) identity: Identity,
    pub(crate) applied: watch::Receiver<Arc<Applied>>,
    /// Its channel closes when the store is closed.
    closed: watch::Receiver<()>,
    /// Where the store is, for messages.
    pub(crate) path: PathBuf,
    pub(crate) failure: Failure,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) submit_timeout: Duration,
    pub(crate) append_timeout: Duration,
    pub(crate) heartbeat: Duration,
    /// So long voters stay with a Raft leader that they heard.
    pub(crate) lease: Duration,
    /// So long a candidate may take to gather its votes.
    pub(crate) voting: Duration,
    pub(crate) submits: Semaphore,
    /// One change of the group at a time.
    pub(crate) changes: Semaphore,
    pub(crate) calls: Calls,
    pub(crate) assembly: Mutex<Assembly>,
    /// That a snapshot is of a newer build was said.
    pub(crate) told_newer: Once,
    pub(crate) leading: Mutex<Leading>,
    /// It was told to stop.
    pub(crate) closing: watch::Sender<bool>,
}

/// What a start may do to a store that holds no group.
#[derive(Clone, Copy)]
enum Start {
    Bootstrap,
    Open,
    Enter,
}

impl Consensus {
    /// Founds a fleet of one in an empty data directory, or opens what is there.
    pub async fn bootstrap(options: Options) -> Result<Self, OpenError> {
        let dir = DataDir::open_or_found(&options.data_dir, Founding::Group, || fresh_identity(&options))?;
        Self::start_in(dir, options, Start::Bootstrap).await
    }

    /// Founds a node without a group in an empty data directory, or opens what is there. It answers
    /// its peers, and waits until a Raft leader adds it ([`Consensus::add_learner`]). It may be
    /// stopped and opened again meanwhile: its identity stays.
    pub async fn enter(options: Options) -> Result<Self, OpenError> {
        let dir = DataDir::open_or_found(&options.data_dir, Founding::Waiting, || fresh_identity(&options))?;
        Self::start_in(dir, options, Start::Enter).await
    }

    /// Opens the node that the data directory holds.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let dir = DataDir::open(&options.data_dir)?;
        Self::start_in(dir, options, Start::Open).await
    }

    /// As [`Consensus::bootstrap`], on storage that the caller brings: for simulation. The data
    /// directory is not touched and only names the storage in errors. A power cut while this first
    /// call creates the database leaves storage that is refused as damaged (in a directory a
    /// rename prevents that): begin again with empty storage.
    pub async fn bootstrap_on(backend: impl StorageBackend, options: Options) -> Result<Self, OpenError> {
        Self::start_on(backend, options, Start::Bootstrap).await
    }

    /// As [`Consensus::enter`], on storage that the caller brings: for simulation.
    pub async fn enter_on(backend: impl StorageBackend, options: Options) -> Result<Self, OpenError> {
        Self::start_on(backend, options, Start::Enter).await
    }

    /// As [`Consensus::open`], on storage that the caller brings: for simulation.
    pub async fn open_on(backend: impl StorageBackend, options: Options) -> Result<Self, OpenError> {
        Self::start_on(backend, options, Start::Open).await
    }

    async fn start_on(
        backend: impl StorageBackend,
        options: Options,
        start: Start,
    ) -> Result<Self, OpenError> {
        let path = options.data_dir.clone();
        let failed = |e| OpenError::store(&path, e);
        let db = store::database(backend).map_err(failed)?;
        if store::identity(&db).map_err(failed)?.is_none() {
            let founding = match start {
                Start::Bootstrap => Founding::Group,
                Start::Enter => Founding::Waiting,
                Start::Open => return Err(OpenError::NotBootstrapped { data_dir: path }),
            };
            store::found(&db, &fresh_identity(&options), founding).map_err(failed)?;
        }
        Self::start(db, None, path, options, start).await
    }

    async fn start_in(dir: DataDir, options: Options, start: Start) -> Result<Self, OpenError> {
        let db = dir.database()?;
        let path = dir.store_path();
        Self::start(db, Some(dir), path, options, start).await
    }

    async fn start(
        db: Database,
        dir: Option<DataDir>,
        path: PathBuf,
        options: Options,
        start: Start,
    ) -> Result<Self, OpenError> {
        let config = options.raft_config().map_err(|e| OpenError::Options { source: e })?;
        let store_failed = |e| OpenError::store(&path, e);
        let identity = current_identity(&db, &options, &path)?;
        let waiting = store::waiting(&db).map_err(store_failed)?;
        if waiting && matches!(start, Start::Bootstrap) {
            return Err(OpenError::Waiting { data_dir: options.data_dir });
        }
        // A group that was never founded, because bootstrap was interrupted, has no members either.
        let waits = waiting || matches!(start, Start::Enter);
        let (store, closed) = Store::new(db, dir, &path).map_err(store_failed)?;
        let failure = store.failure();
        let snapshot = store.load().map_err(store_failed)?;
        let machine = Machine::new(store.clone(), snapshot);
        let applied = machine.watch();
        let calls = Calls::new(options.peers.clone());
        let raft = Raft::new(identity.node_id, Arc::new(config), Ways(calls.clone()), store, machine);
        let raft = drawing_from(options.entropy.clone(), raft).await.map_err(|e| start_failed(&path, e))?;
        let consensus = Self {
            inner: Arc::new(Inner {
                raft,
                identity,
                applied,
                closed,
                path: path.clone(),
                failure,
                append_timeout: options.append_timeout(),
                heartbeat: options.heartbeat,
                lease: options.election_timeout_max,
                voting: options.election_timeout_min,
                clock: options.clock,
                entropy: options.entropy,
                submit_timeout: options.submit_timeout,
                submits: Semaphore::new(SUBMITS_IN_FLIGHT_MAX),
                changes: Semaphore::new(1),
                calls,
                assembly: Mutex::default(),
                told_newer: Once::new(),
                leading: Mutex::default(),
                closing: watch::Sender::default(),
            }),
        };
        if let Err(e) = consensus.join_group(start, waits, &options.data_dir, &path).await {
            // Leaves the directory free for the next attempt.
            consensus.shutdown().await;
            return Err(e);
        }
        tokio::spawn(campaign::run(Arc::downgrade(&consensus.inner)));
        Ok(consensus)
    }

    /// Founds the group if that is still to be done; a group of one then elects itself at once.
    async fn join_group(
        &self,
        start: Start,
        waits: bool,
        data_dir: &Path,
        path: &Path,
    ) -> Result<(), OpenError> {
        let raft = &self.inner.raft;
        let me = self.inner.identity.node_id;
        if !raft.is_initialized().await.map_err(|e| start_failed(path, e))? {
            if waits {
                return Ok(());
            }
            if !matches!(start, Start::Bootstrap) {
                // The node was founded, its group not yet: bootstrap was interrupted.
                return Err(OpenError::NotBootstrapped { data_dir: data_dir.to_owned() });
            }
            match raft.initialize(BTreeMap::from([(me, BasicNode::default())])).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(e) => return Err(start_failed(path, e)),
            }
        }
        // Asked of the core: the metrics may be a step behind it.
        let (alone, leads) = raft
            .with_raft_state(move |state| {
                let members = state.membership_state.effective().membership();
                (members.voter_ids().eq([me]), state.server_state == ServerState::Leader)
            })
            .await
            .map_err(|e| start_failed(path, e))?;
        if !alone {
            return Ok(());
        }
        if !leads {
            raft.trigger().elect().await.map_err(|e| start_failed(path, e))?;
        }
        let ready = |m: &RaftMetrics<u64, BasicNode>| {
            let applied = m.last_applied.map(|id| id.index);
            m.state == ServerState::Leader && applied >= m.last_log_index
        };
        if let Err(e) = raft.wait(Some(READY_WAIT)).metrics(ready, "leader of a group of one").await {
            tracing::warn!(error = %e, "consensus: not the leader of its own group yet");
        }
        Ok(())
    }

    pub fn node_id(&self) -> NodeId {
        NodeId(self.inner.identity.node_id)
    }

    /// Proposes a change, through the Raft leader wherever it is, and waits until it was applied here.
    ///
    /// Dropping the future doesn't take the proposal back.
    pub async fn submit(&self, action: Action) -> Result<Outcome, SubmitError> {
        self.inner.submit(action).await
    }

    /// The applied catalog, renewed after each applied batch.
    ///
    /// Clone the `Arc` out of `borrow()` at once: nothing is applied while the borrow lives.
    /// Holding the `Arc` costs the next batch a copy of the maps that it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Applied>> {
        self.inner.applied.clone()
    }

    /// A catalog that holds every command acknowledged before this call, anywhere in the fleet.
    pub async fn read(&self) -> Result<Arc<Applied>, SubmitError> {
        self.inner.read().await
    }

    /// Answers a call that another member made to [`peers::Service::Raft`].
    pub async fn serve(&self, from: NodeId, request: Bytes) -> Bytes {
        self.inner.clone().serve(from, request).await
    }

    /// Stops this node's part and waits until the data directory is free for the next process.
    /// Commands under way are answered `Stopped`. May be called again.
    pub async fn shutdown(&self) {
        self.inner.closing.send_replace(true);
        let mut closed = self.inner.closed.clone();
        let stop = async {
            if let Err(e) = self.inner.raft.shutdown().await {
                tracing::warn!(error = %e, "consensus: did not stop cleanly");
            }
            while closed.changed().await.is_ok() {}
        };
        if timeout(SHUTDOWN_WAIT, stop).await.is_err() {
            tracing::warn!("consensus: the store is still open {SHUTDOWN_WAIT:?} after the order to stop");
        }
    }
}

impl Inner {
    /// What openraft answers; none when this node is told to stop. It then isn't asked any more, nor waited
    /// for: it would log whatever it can't answer as an error.
    pub(crate) async fn unless_closing<T>(&self, asked: impl Future<Output = T>) -> Option<T> {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => None,
            answer = asked => Some(answer),
        }
    }
}

fn fresh_identity(options: &Options) -> Identity {
    // 0 is what an unset id looks like.
    let node_id = (options.entropy)().max(1);
    Identity { node_id, node_name: options.node_name.clone() }
}

/// The identity in the store, under today's name.
fn current_identity(db: &Database, options: &Options, path: &Path) -> Result<Identity, OpenError> {
    let name = &options.node_name;
    let store_failed = |e| OpenError::store(path, e);
    let mut identity = store::identity(db)
        .map_err(store_failed)?
        .ok_or_else(|| OpenError::corrupt(path, "it holds no node"))?;
    if options.renames && identity.node_name != *name {
        name.clone_into(&mut identity.node_name);
        store::rename(db, &identity).map_err(store_failed)?;
    }
    Ok(identity)
}

fn start_failed(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> OpenError {
    OpenError::Start { path: path.to_owned(), source: Box::new(error) }
}
