//! What a node chooses about its consensus: place, timing, and the seams for simulation.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peers::Call;

use crate::network::Alone;

/// Well above a durable commit on a busy disk (some tenths of a millisecond idle, tens of ms under load), so that a
/// loaded member is not taken for a lost one.
const HEARTBEAT: Duration = Duration::from_millis(150);

/// How long one vote may take: regions on opposite sides of the earth answer in 300 ms.
const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(500);

/// Four heartbeats: for so long voters stay with a Raft leader that they heard. It leaves an election
/// under 2 s, and the 5 s in which a lost node's partitions must run elsewhere.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(700);

/// Longer than an election, shorter than a person's patience.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Entries between snapshots: at 4,000 durable commits a second no more than one a second, and a
/// start replays at most this many (a few ms).
const SNAPSHOT_AFTER_ENTRIES: u64 = 5_000;

/// Entries kept behind a snapshot, so that a member that was away for a moment is sent entries
/// and not the whole catalog.
const LOG_KEPT_ENTRIES: u64 = 1_000;

/// Entries in one call, at most: far more than arrive within a round trip; their bytes are bounded in
/// `network`.
const ENTRIES_IN_CALL_MAX: u64 = 512;

/// Sent within a chunk's time even at 1 Mbit/s.
const SNAPSHOT_CHUNK_BYTES: u64 = 512 * 1024;

/// The last chunk's answer comes when the whole snapshot is on the other's disk.
const SNAPSHOT_CHUNK_TIMEOUT: Duration = Duration::from_secs(15);

/// Wall clock: milliseconds since 1970. Stamps commands; nothing is ever timed by it.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Source of chance: fresh node ids, election timeouts.
pub type Entropy = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a durable commit waits for before it begins. Nothing, by default; a simulated disk may be slow.
#[derive(Clone, Default)]
pub struct Pace(Option<Arc<dyn Fn() -> PaceFuture + Send + Sync>>);

type PaceFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Pace {
    pub fn new<F>(wait: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Some(Arc::new(move || Box::pin(wait()))))
    }

    pub(crate) async fn wait(&self) {
        if let Some(wait) = &self.0 {
            wait().await;
        }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pace")
    }
}

#[derive(Clone)]
pub struct Options {
    /// Holds `raft.redb` and the lock; belongs to one process at a time.
    pub data_dir: PathBuf,
    /// A label; the node's identity is its id. A node that exists takes it only when it
    /// [`renames`](Self::renames).
    pub node_name: String,
    /// Whether a node that was given another name before goes by `node_name` from now on.
    pub renames: bool,
    pub heartbeat: Duration,
    pub election_timeout_min: Duration,
    pub election_timeout_max: Duration,
    /// Bounds [`Consensus::submit`](crate::Consensus::submit) and
    /// [`Consensus::read`](crate::Consensus::read).
    pub submit_timeout: Duration,
    pub snapshot_after_entries: u64,
    pub log_kept_entries: u64,
    pub clock: Clock,
    pub entropy: Entropy,
    /// Of the disk.
    pub pace: Pace,
    /// The way to the other members; by default there is none, and the node is alone.
    pub peers: Arc<dyn Call>,
}

impl Options {
    pub fn new(data_dir: impl Into<PathBuf>, node_name: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            node_name: node_name.into(),
            renames: true,
            heartbeat: HEARTBEAT,
            election_timeout_min: ELECTION_TIMEOUT_MIN,
            election_timeout_max: ELECTION_TIMEOUT_MAX,
            submit_timeout: SUBMIT_TIMEOUT,
            snapshot_after_entries: SNAPSHOT_AFTER_ENTRIES,
            log_kept_entries: LOG_KEPT_ENTRIES,
            clock: Arc::new(wall_clock_ms),
            entropy: system_entropy(),
            pace: Pace::default(),
            peers: Arc::new(Alone),
        }
    }

    /// How long sending entries and waiting for the answer may take. openraft calls it the heartbeat
    /// interval; heartbeats themselves come from [`crate::campaign`], more often.
    pub(crate) fn append_timeout(&self) -> Duration {
        (self.election_timeout_min * 4 / 5).max(self.heartbeat)
    }

    pub(crate) fn raft_config(&self) -> Result<openraft::Config, Box<openraft::ConfigError>> {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: "lockstep".to_owned(),
            heartbeat_interval: ms(self.append_timeout()),
            election_timeout_min: ms(self.election_timeout_min),
            election_timeout_max: ms(self.election_timeout_max),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_after_entries),
            max_in_snapshot_log_to_keep: self.log_kept_entries,
            max_payload_entries: ENTRIES_IN_CALL_MAX,
            snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
            install_snapshot_timeout: ms(SNAPSHOT_CHUNK_TIMEOUT),
            // Elections are started by `campaign`, but for a group of one.
            enable_elect: false,
            // A member further behind than this is sent a snapshot; below the snapshot interval
            // it could be sent one that doesn't help it.
            replication_lag_threshold: self.snapshot_after_entries.saturating_add(self.log_kept_entries),
            ..openraft::Config::default()
        }
        .validate()
        .map_err(Box::new)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("data_dir", &self.data_dir)
            .field("node_name", &self.node_name)
            .finish_non_exhaustive()
    }
}

#[expect(clippy::disallowed_methods, reason = "production's source")]
pub(crate) fn system_entropy() -> Entropy {
    Arc::new(rand::random::<u64>)
}

#[expect(clippy::disallowed_methods, reason = "production's clock")]
fn wall_clock_ms() -> i64 {
    // A clock before 1970 is a machine without a clock: 0 says so.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}
