//! The handle that the rest of the node holds: founding, opening, submitting, reading, stopping.
//!
//! Every wait in it has an end: submitting and reading by [`Options::submit_timeout`], opening
//! and stopping by the constants below.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use catalog::{Action, Command, NodeId, Outcome, Refusal, codec};
use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{BasicNode, RaftMetrics, ServerState};
use redb::{Database, StorageBackend};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::directory::DataDir;
use crate::error::{OpenError, SubmitError};
use crate::network::Alone;
use crate::options::{Clock, Options};
use crate::raft::Raft;
use crate::runtime::drawing_from;
use crate::store::{self, Applied, Identity, Machine, Store};

/// How long opening a group of one waits for its own leadership, which takes milliseconds. If it
/// takes longer the node starts all the same, and commands wait for the leader.
const READY_WAIT: Duration = Duration::from_secs(5);

/// How long stopping waits for the last write and the closing of the database.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Commands under way at once; more wait their turn. openraft's own queue has no bound.
const SUBMITS_IN_FLIGHT_MAX: usize = 1_024;

/// Encoded command, at most: far above the largest sensible one (100,000 partitions assigned at
/// once are some 8 MB), far below what the codec reads back.
const COMMAND_BYTES_MAX: usize = 32 * 1024 * 1024;

/// This node's part in the Raft group. Cheap to clone. Dropping the last one stops it without
/// waiting; [`Consensus::shutdown`] waits until the data directory is free.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft,
    identity: Identity,
    applied: watch::Receiver<Arc<Applied>>,
    /// Its channel closes when the store is closed.
    closed: watch::Receiver<()>,
    clock: Clock,
    submit_timeout: Duration,
    submits: Semaphore,
}

/// What this node can say about the group at once, without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub node_id: NodeId,
    pub node_name: String,
    /// This node believes that it leads. A leader that was cut off believes it too: trust it only
    /// with a recent [`Status::millis_since_quorum_ack`].
    pub is_leader: bool,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub last_applied: u64,
    /// Since a majority last confirmed this node as leader; none on the others. A group of one
    /// confirms itself.
    pub millis_since_quorum_ack: Option<u64>,
    pub voters: Vec<NodeId>,
    /// Why consensus on this node no longer runs.
    pub stopped: Option<String>,
}

impl Consensus {
    /// Founds a fleet of one in an empty data directory, or opens what is there.
    pub async fn bootstrap(options: Options) -> Result<Self, OpenError> {
        let dir = DataDir::open_or_found(&options.data_dir, || fresh_identity(&options))?;
        Self::start_in(dir, options, true).await
    }

    /// Opens the node that the data directory holds.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let dir = DataDir::open(&options.data_dir)?;
        Self::start_in(dir, options, false).await
    }

    /// As [`Consensus::bootstrap`], on storage that the caller brings: for simulation. The data
    /// directory is not touched and only names the storage in errors. A power cut while this first
    /// call creates the database leaves storage that is refused as damaged (in a directory a
    /// rename prevents that): begin again with empty storage.
    pub async fn bootstrap_on(backend: impl StorageBackend, options: Options) -> Result<Self, OpenError> {
        let path = options.data_dir.clone();
        let db = store::database(backend).map_err(|e| OpenError::store(&path, e))?;
        let founded = match store::identity(&db) {
            Ok(None) => store::found(&db, &fresh_identity(&options)),
            Ok(Some(_)) => Ok(()),
            Err(e) => Err(e),
        };
        founded.map_err(|e| OpenError::store(&path, e))?;
        Self::start(db, None, path, options, true).await
    }

    /// As [`Consensus::open`], on storage that the caller brings: for simulation.
    pub async fn open_on(backend: impl StorageBackend, options: Options) -> Result<Self, OpenError> {
        let path = options.data_dir.clone();
        let db = store::database(backend).map_err(|e| OpenError::store(&path, e))?;
        if store::identity(&db).map_err(|e| OpenError::store(&path, e))?.is_none() {
            return Err(OpenError::NotBootstrapped { data_dir: path });
        }
        Self::start(db, None, path, options, false).await
    }

    async fn start_in(dir: DataDir, options: Options, bootstrap: bool) -> Result<Self, OpenError> {
        let db = dir.database()?;
        let path = dir.store_path();
        Self::start(db, Some(dir), path, options, bootstrap).await
    }

    async fn start(
        db: Database,
        dir: Option<DataDir>,
        path: PathBuf,
        options: Options,
        bootstrap: bool,
    ) -> Result<Self, OpenError> {
        let config = options.raft_config().map_err(|e| OpenError::Options { source: e })?;
        let store_failed = |e| OpenError::store(&path, e);
        let identity = current_identity(&db, &options, &path)?;
        let (store, closed) = Store::new(db, dir).map_err(store_failed)?;
        let snapshot = store.load().map_err(store_failed)?;
        let machine = Machine::new(store.clone(), snapshot);
        let applied = machine.watch();
        let raft = Raft::new(identity.node_id, Arc::new(config), Alone, store, machine);
        let raft = drawing_from(options.entropy.clone(), raft).await.map_err(|e| start_failed(&path, e))?;
        let consensus = Self {
            inner: Arc::new(Inner {
                raft,
                identity,
                applied,
                closed,
                clock: options.clock,
                submit_timeout: options.submit_timeout,
                submits: Semaphore::new(SUBMITS_IN_FLIGHT_MAX),
            }),
        };
        if let Err(e) = consensus.join_group(bootstrap, &options.data_dir, &path).await {
            // Leaves the directory free for the next attempt.
            consensus.shutdown().await;
            return Err(e);
        }
        Ok(consensus)
    }

    /// Founds the group if that is still to be done; a group of one then elects itself at once.
    async fn join_group(&self, bootstrap: bool, data_dir: &Path, path: &Path) -> Result<(), OpenError> {
        let raft = &self.inner.raft;
        let me = self.inner.identity.node_id;
        if !raft.is_initialized().await.map_err(|e| start_failed(path, e))? {
            if !bootstrap {
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

    /// Proposes a change and waits until it was applied here.
    ///
    /// Dropping the future doesn't take the proposal back.
    pub async fn submit(&self, action: Action) -> Result<Outcome, SubmitError> {
        let inner = &self.inner;
        let deadline = Instant::now() + inner.submit_timeout;
        let no_leader = |_| SubmitError::NoLeader { leader: None };
        let _turn = timeout_at(deadline, inner.submits.acquire())
            .await
            .map_err(no_leader)?
            .map_err(|_| SubmitError::Stopped)?;
        timeout_at(deadline, self.leader_known()).await.map_err(no_leader)??;
        let command = Command { at_ms: (inner.clock)(), action };
        let bytes = codec::encode(&command).len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(SubmitError::Refused(Refusal::Invalid {
                field: "command".to_owned(),
                message: format!("{bytes} bytes, {COMMAND_BYTES_MAX} at most: split it"),
            }));
        }
        match timeout_at(deadline, inner.raft.client_write(command)).await {
            Ok(Ok(response)) => Ok(response.data?),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(SubmitError::NoLeader { leader: to.leader_id.map(NodeId) })
            }
            // The first answers membership changes only.
            Ok(Err(
                RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) | RaftError::Fatal(_),
            )) => Err(SubmitError::Stopped),
            Err(_) => Err(SubmitError::Deadline),
        }
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
        let inner = &self.inner;
        let deadline = Instant::now() + inner.submit_timeout;
        timeout_at(deadline, self.leader_known())
            .await
            .map_err(|_| SubmitError::NoLeader { leader: None })??;
        match timeout_at(deadline, inner.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(inner.applied.borrow().clone()),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                Err(SubmitError::NoLeader { leader: to.leader_id.map(NodeId) })
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {
                Err(SubmitError::NoLeader { leader: None })
            }
            Ok(Err(RaftError::Fatal(_))) => Err(SubmitError::Stopped),
            Err(_) => Err(SubmitError::Deadline),
        }
    }

    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let me = self.node_id();
        let running = metrics.running_state.is_ok();
        let is_leader = running && metrics.state == ServerState::Leader;
        let voters = voters(&metrics);
        // openraft refreshes this only when something happens, and a group of one is quiet.
        let since_ack = if voters == [me] { Some(0) } else { metrics.millis_since_quorum_ack };
        Status {
            node_id: me,
            node_name: self.inner.identity.node_name.clone(),
            is_leader,
            leader: metrics.current_leader.filter(|_| running).map(NodeId),
            term: metrics.current_term,
            last_applied: self.inner.applied.borrow().index,
            millis_since_quorum_ack: since_ack.filter(|_| is_leader),
            voters,
            stopped: metrics.running_state.err().map(|fatal| match fatal {
                Fatal::Stopped => "shut down".to_owned(),
                other => other.to_string(),
            }),
        }
    }

    /// Stops this node's part and waits until the data directory is free for the next process.
    /// Commands under way are answered `Stopped`. May be called again.
    pub async fn shutdown(&self) {
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

    /// Waits until somebody leads, as far as this node knows.
    async fn leader_known(&self) -> Result<(), SubmitError> {
        let mut metrics = self.inner.raft.metrics();
        let state = metrics
            .wait_for(|m| m.current_leader.is_some() || m.running_state.is_err())
            .await
            .map_err(|_| SubmitError::Stopped)?;
        if state.running_state.is_err() { Err(SubmitError::Stopped) } else { Ok(()) }
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

fn voters(metrics: &RaftMetrics<u64, BasicNode>) -> Vec<NodeId> {
    metrics.membership_config.membership().voter_ids().map(NodeId).collect()
}

fn start_failed(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> OpenError {
    OpenError::Start { path: path.to_owned(), source: Box::new(error) }
}
