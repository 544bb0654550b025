//! What runs on this node, readable at any moment without asking an actor.
//!
//! The data plane writes atomics as it goes; REST, metrics and tests read the same snapshot.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalog::{LinkId, MirrorError, MirrorKey, PartitionKey};

use crate::credit::LinkCredit;
use crate::fleet::lease::LeaseKeeper;
use crate::pace::LinkPace;
use crate::plane::LinkPlane;

/// An answer older than this says nothing about now: lag is unknown then.
const HEARD_WITHIN_MS: i64 = 15_000;

const UNSET: i64 = -1;

/// What a mirror partition is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionState {
    /// Looking at both logs, before the first or the next run.
    Checking,
    /// Waiting until no request from before can arrive any more, then checks again.
    Quieting {
        until_ms: i64,
    },
    /// What comes next would not be guarded, and this node holds no lease: it goes on when the fleet's
    /// coordinator is heard again.
    WaitingForLease,
    Running,
    /// Writing filler records below the source's log start.
    Filling {
        to: i64,
    },
    /// Something that time or a grant can cure; tries again by itself.
    Parked {
        error: MirrorError,
        message: String,
        retry_at_ms: i64,
    },
    Failed {
        error: MirrorError,
        message: String,
    },
    Stopped,
}

impl PartitionState {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Checking => "CHECKING",
            Self::Quieting { .. } => "QUIETING",
            Self::WaitingForLease => "WAITING_FOR_LEASE",
            Self::Running => "RUNNING",
            Self::Filling { .. } => "FILLING",
            Self::Parked { .. } => "PARKED",
            Self::Failed { .. } => "FAILED",
            Self::Stopped => "STOPPED",
        }
    }
}

/// Counters and state of one mirror partition, shared by its actor and its lanes.
#[derive(Debug)]
pub struct PartitionStats {
    state: Mutex<(PartitionState, i64)>,
    pub mirror_end: AtomicI64,
    pub fetch_offset: AtomicI64,
    pub source_high_watermark: AtomicI64,
    pub source_last_stable_offset: AtomicI64,
    /// When the source last answered for this partition, ms since 1970.
    pub source_heard_ms: AtomicI64,
    /// Since when the mirror has been behind without a break, ms since 1970.
    pub behind_since_ms: AtomicI64,
    pub guarded: AtomicBool,
    /// It was told to stop long ago and hasn't.
    pub stops_late: AtomicBool,
    /// Bytes between fetch and acknowledgement.
    pub outstanding_bytes: Arc<AtomicUsize>,
    /// Bytes appended since this process began.
    pub appended_bytes: AtomicU64,
}

impl Default for PartitionStats {
    fn default() -> Self {
        let unset = || AtomicI64::new(UNSET);
        Self {
            state: Mutex::new((PartitionState::Checking, UNSET)),
            mirror_end: unset(),
            fetch_offset: unset(),
            source_high_watermark: unset(),
            source_last_stable_offset: unset(),
            source_heard_ms: unset(),
            behind_since_ms: unset(),
            guarded: AtomicBool::new(false),
            stops_late: AtomicBool::new(false),
            outstanding_bytes: Arc::default(),
            appended_bytes: AtomicU64::new(0),
        }
    }
}

impl PartitionStats {
    pub fn set_state(&self, state: PartitionState, now_ms: i64) {
        let mut current = lock(&self.state);
        if current.0 != state {
            *current = (state, now_ms);
        }
    }

    pub fn state(&self) -> PartitionState {
        lock(&self.state).0.clone()
    }

    /// The source's log ends as of `now_ms`.
    pub fn source_heard(&self, high_watermark: i64, last_stable_offset: i64, now_ms: i64) {
        self.source_high_watermark.store(high_watermark, Ordering::Relaxed);
        self.source_last_stable_offset.store(last_stable_offset, Ordering::Relaxed);
        self.source_heard_ms.store(now_ms, Ordering::Relaxed);
        self.note_distance(now_ms);
    }

    /// Both logs were looked at. The last stable offset is at most the high watermark; the first
    /// fetch tells.
    pub fn looked(&self, mirror_end: i64, source_high_watermark: i64, now_ms: i64) {
        self.mirror_end.store(mirror_end, Ordering::Relaxed);
        self.source_heard(source_high_watermark, source_high_watermark, now_ms);
    }

    pub fn appended_to(&self, end_offset: i64, now_ms: i64) {
        self.mirror_end.store(end_offset, Ordering::Relaxed);
        self.note_distance(now_ms);
    }

    fn note_distance(&self, now_ms: i64) {
        let behind =
            self.mirror_end.load(Ordering::Relaxed) < self.source_high_watermark.load(Ordering::Relaxed);
        let since = if !behind { UNSET } else { now_ms };
        if !behind || self.behind_since_ms.load(Ordering::Relaxed) == UNSET {
            self.behind_since_ms.store(since, Ordering::Relaxed);
        }
    }

    fn runs(&self) -> bool {
        matches!(lock(&self.state).0, PartitionState::Running | PartitionState::Filling { .. })
    }

    /// It runs, and nothing guards what comes next. While it is idle, a lease that ends doesn't end its run:
    /// its next batch would.
    fn needs_lease(&self) -> bool {
        self.runs() && !self.guarded.load(Ordering::Relaxed)
    }

    pub(crate) fn view(&self, partition: u32, now_ms: i64) -> PartitionView {
        let known = |value: &AtomicI64| Some(value.load(Ordering::Relaxed)).filter(|v| *v != UNSET);
        let (state, since_ms) = lock(&self.state).clone();
        let heard = known(&self.source_heard_ms).filter(|at| now_ms - at <= HEARD_WITHIN_MS);
        let source_end = known(&self.source_high_watermark).filter(|_| heard.is_some());
        let mirror_end = known(&self.mirror_end);
        let lag = source_end.zip(mirror_end).map(|(source, mirror)| (source - mirror).max(0));
        let behind_ms = known(&self.behind_since_ms).map(|since| (now_ms - since).max(0));
        let (error, retry_at_ms) = match &state {
            PartitionState::Parked { error, message, retry_at_ms } => {
                (Some((error.name(), message.clone())), Some(*retry_at_ms))
            }
            PartitionState::Failed { error, message } => (Some((error.name(), message.clone())), None),
            PartitionState::Quieting { until_ms } => (None, Some(*until_ms)),
            _ => (None, None),
        };
        let stuck = self.stops_late.load(Ordering::Relaxed).then(|| {
            let message = "it was told to stop long ago and hasn't: if this lasts, restart its node";
            (MirrorError::Unknown.name(), message.to_owned())
        });
        let error = stuck.or(error);
        PartitionView {
            partition,
            state: state.name(),
            lag,
            lag_ms: lag.and_then(|lag| if lag == 0 { Some(0) } else { behind_ms }),
            last_source_fetch_offset: known(&self.fetch_offset).map(|next| next - 1),
            source_end_offset: source_end,
            source_last_stable_offset: known(&self.source_last_stable_offset).filter(|_| heard.is_some()),
            mirror_end_offset: mirror_end,
            guarded: mirror_end.map(|_| self.guarded.load(Ordering::Relaxed)),
            outstanding_bytes: self.outstanding_bytes.load(Ordering::Relaxed),
            fills_to: match state {
                PartitionState::Filling { to } => Some(to),
                _ => None,
            },
            error,
            since_ms,
            retry_at_ms,
        }
    }
}

/// One row of `mirror_lags` (SPEC section 4).
#[derive(Clone, Debug)]
pub struct PartitionView {
    pub partition: u32,
    /// `CHECKING`, `QUIETING`, `WAITING_FOR_LEASE`, `RUNNING`, `FILLING`, `PARKED`, `FAILED`, `STOPPED`.
    pub state: &'static str,
    /// Offsets behind the source's high watermark; `None` when not known.
    pub lag: Option<i64>,
    /// How long the mirror has been behind without a break; 0 when it isn't.
    pub lag_ms: Option<i64>,
    /// Last offset handed to the destination side; `None` before the first fetch.
    pub last_source_fetch_offset: Option<i64>,
    pub source_end_offset: Option<i64>,
    pub source_last_stable_offset: Option<i64>,
    pub mirror_end_offset: Option<i64>,
    pub guarded: Option<bool>,
    /// Bytes between fetch and acknowledgement.
    pub outstanding_bytes: usize,
    /// Up to which offset a missing prefix is being filled.
    pub fills_to: Option<i64>,
    /// Why it is parked or failed: error name and message.
    pub error: Option<(&'static str, String)>,
    /// Since when it is in this state, milliseconds since 1970.
    pub since_ms: i64,
    /// When a parked partition tries again, milliseconds since 1970.
    pub retry_at_ms: Option<i64>,
}

impl PartitionView {
    /// What is left when nothing is known of the source.
    fn without_source(self) -> Self {
        let unknown = None;
        Self {
            lag: unknown,
            lag_ms: unknown,
            source_end_offset: unknown,
            source_last_stable_offset: unknown,
            ..self
        }
    }
}

/// Link health as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// `ACTIVE`, `UNAVAILABLE`, `FAILED`, `UNKNOWN` (SPEC section 4).
    pub state: &'static str,
    pub error: &'static str,
    pub error_message: Option<String>,
    /// The source answers.
    pub source_available: bool,
}

/// A link's task as this node does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    pub name: &'static str,
    /// What went wrong in its last round, by mirror topic or group; by the empty name what has to do with none.
    pub errors: BTreeMap<Arc<str>, TaskError>,
    /// What is to be known and isn't wrong, likewise.
    pub remarks: BTreeMap<Arc<str>, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// `AUTHORIZATION_ERROR`, `CONSUMER_GROUP_IN_USE_ERROR`, … (SPEC section 4).
    pub code: &'static str,
    pub message: String,
}

const GROUP_IN_USE: &str = "CONSUMER_GROUP_IN_USE_ERROR";

impl TaskError {
    /// What a grant cures; the message names it.
    pub fn authorization(message: String) -> Self {
        Self { code: "AUTHORIZATION_ERROR", message }
    }

    pub fn misconfiguration(message: String) -> Self {
        Self { code: "MISCONFIGURATION_ERROR", message }
    }

    pub fn group_in_use(message: String) -> Self {
        Self { code: GROUP_IN_USE, message }
    }

    pub fn topic_exists(message: String) -> Self {
        Self { code: "TOPIC_EXISTS_ERROR", message }
    }

    pub fn is_group_in_use(&self) -> bool {
        self.code == GROUP_IN_USE
    }

    pub fn internal(message: String) -> Self {
        Self { code: "INTERNAL_ERROR", message }
    }
}

/// Registry of observable snapshots.
pub struct Observatory {
    now_ms: crate::clock::WallClock,
    lease: Arc<LeaseKeeper>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    mirrors: BTreeMap<MirrorKey, BTreeMap<u32, Arc<PartitionStats>>>,
    links: BTreeMap<LinkId, LinkView>,
    planes: BTreeMap<LinkId, (LinkCredit, Arc<LinkPace>)>,
    waiting: BTreeMap<MirrorKey, String>,
    tasks: BTreeMap<LinkId, BTreeMap<&'static str, TaskView>>,
}

impl Observatory {
    pub fn new(clock: crate::clock::WallClock, lease: Arc<LeaseKeeper>) -> Self {
        Self { now_ms: clock, lease, inner: Mutex::default() }
    }

    /// Rows of the partitions of one mirror topic that run here, by partition.
    pub fn partitions(&self, mirror: &MirrorKey) -> Vec<PartitionView> {
        let now_ms = self.now_ms.now_ms();
        let inner = lock(&self.inner);
        let source_available = inner.links.get(&mirror.link).is_none_or(|link| link.source_available);
        let rows = inner.mirrors.get(mirror).into_iter().flatten();
        let without_lease = self.lease.without_for();
        let view = |(partition, stats): (&u32, &Arc<PartitionStats>)| {
            let mut view = stats.view(*partition, now_ms);
            if let Some(without) = without_lease.filter(|_| stats.needs_lease()) {
                view.state = PartitionState::WaitingForLease.name();
                let ended_ms = now_ms - i64::try_from(without.as_millis()).unwrap_or(i64::MAX);
                view.since_ms = view.since_ms.max(ended_ms);
            }
            if source_available { view } else { view.without_source() }
        };
        rows.map(view).collect()
    }

    /// Bytes of one link between fetch and acknowledgement on this node; `None` when it doesn't run
    /// here.
    pub fn credit_in_use_bytes(&self, link: &LinkId) -> Option<usize> {
        lock(&self.inner).planes.get(link).map(|(credit, _)| credit.in_use_bytes())
    }

    /// What holds the link's writes back on this node; `None` when it doesn't run here.
    pub fn pace(&self, link: &LinkId) -> Option<Arc<LinkPace>> {
        lock(&self.inner).planes.get(link).map(|(_, pace)| pace.clone())
    }

    pub fn link(&self, link: &LinkId) -> Option<LinkView> {
        lock(&self.inner).links.get(link).cloned()
    }

    /// What a mirror that isn't ready yet waits for.
    pub fn waiting_for(&self, mirror: &MirrorKey) -> Option<String> {
        lock(&self.inner).waiting.get(mirror).cloned()
    }

    /// Of each partition that runs here, or did and comes back.
    pub fn appended_bytes(&self) -> Vec<(PartitionKey, u64)> {
        let inner = lock(&self.inner);
        let all = inner.mirrors.iter().flat_map(|(mirror, all)| all.iter().map(move |(p, s)| (mirror, p, s)));
        let total = |(mirror, partition, stats): (&MirrorKey, &u32, &Arc<PartitionStats>)| {
            let key = PartitionKey { mirror: mirror.clone(), partition: *partition };
            (key, stats.appended_bytes.load(Ordering::Relaxed))
        };
        all.map(total).collect()
    }

    /// Mirror partitions that run here.
    pub fn running(&self) -> u32 {
        let inner = lock(&self.inner);
        let all = inner.mirrors.values().flat_map(BTreeMap::values);
        let has_lease = self.lease.pass().is_some();
        let running = all.filter(|stats| stats.runs() && (has_lease || !stats.needs_lease()));
        u32::try_from(running.count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn set_link(&self, link: &LinkId, view: Option<LinkView>) {
        let mut inner = lock(&self.inner);
        match view {
            Some(view) => inner.links.insert(link.clone(), view),
            None => {
                inner.tasks.remove(link);
                inner.links.remove(link)
            }
        };
    }

    pub(crate) fn set_plane(&self, link: &LinkId, plane: Option<&LinkPlane>) {
        let mut inner = lock(&self.inner);
        match plane {
            Some(plane) => inner.planes.insert(link.clone(), (plane.credit().clone(), plane.pace().clone())),
            None => inner.planes.remove(link),
        };
    }

    /// What this node does for the link beside its records.
    pub fn tasks(&self, link: &LinkId) -> Vec<TaskView> {
        lock(&self.inner).tasks.get(link).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(crate) fn set_task(&self, link: &LinkId, task: TaskView) {
        lock(&self.inner).tasks.entry(link.clone()).or_default().insert(task.name, task);
    }

    /// It isn't done any more.
    pub(crate) fn clear_task(&self, link: &LinkId, task: &'static str) {
        if let Some(tasks) = lock(&self.inner).tasks.get_mut(link) {
            tasks.remove(task);
        }
    }

    pub(crate) fn set_waiting(&self, mirror: &MirrorKey, waits_for: Option<String>) {
        let mut inner = lock(&self.inner);
        match waits_for {
            Some(text) => inner.waiting.insert(mirror.clone(), text),
            None => inner.waiting.remove(mirror),
        };
    }

    /// The shared stats of a partition that is starting here.
    pub(crate) fn enter(&self, mirror: &MirrorKey, partition: u32) -> Arc<PartitionStats> {
        let mut inner = lock(&self.inner);
        inner.mirrors.entry(mirror.clone()).or_default().entry(partition).or_default().clone()
    }

    /// Forgets the link's partitions that no longer run here and don't come back, and what a mirror
    /// waited for whose first partition, which makes it ready, is among them.
    pub(crate) fn retain(&self, link: &LinkId, stays: impl Fn(&Arc<str>, u32) -> bool) {
        let mut inner = lock(&self.inner);
        inner.waiting.retain(|mirror, _| mirror.link != *link || stays(&mirror.topic, 0));
        inner.mirrors.retain(|mirror, partitions| {
            if mirror.link == *link {
                partitions.retain(|partition, _| stays(&mirror.topic, *partition));
            }
            !partitions.is_empty()
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Uptime, WallClock};

    #[test]
    fn what_a_forgotten_mirror_waited_for_is_forgotten_with_it() {
        let observatory =
            Observatory::new(WallClock::new(|| 0), LeaseKeeper::new(Uptime::new(|| Duration::ZERO)));
        let key = |topic: &str| MirrorKey { link: LinkId("l".into()), topic: topic.into() };
        for topic in ["gone", "stays"] {
            observatory.set_waiting(&key(topic), Some("the destination".into()));
        }
        observatory.retain(&LinkId("l".into()), |topic, _| &**topic == "stays");
        assert_eq!(observatory.waiting_for(&key("gone")), None);
        assert_eq!(observatory.waiting_for(&key("stays")).as_deref(), Some("the destination"));
        observatory.retain(&LinkId("another".into()), |_, _| false);
        assert!(observatory.waiting_for(&key("stays")).is_some(), "of another link");
    }
}
