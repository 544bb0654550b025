//! While this node is Raft leader: hears the nodes' reports, grants leases, and has the planners' plans
//! carried out.
//!
//! Where partitions go is decided by [`catalog::placement`], who votes by [`catalog::voters`]. A plan
//! made on an old catalog is refused by the catalog and made anew. One task places, one changes voters;
//! each waits for its command's answer, so that nothing is ever under way twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::placement::{self, HAND_OVER_MAX, Plan, Planned, Presence, Situation};
use catalog::voters;
use catalog::{Catalog, Duty, NodeId, Refusal};
use consensus::{Applied, MemberError, Status, SubmitError};
use metrics::counter;
use tokio::sync::watch;

use super::changes::Changes;
use super::presence::{Past, Presences};
use super::rates::{ALL_TOLD_AFTER, Told};
use super::report::{Answer, Reason, Report};
use crate::catalog_port::CatalogPort;
use crate::clock::Uptime;

/// A Raft leader that was cut off still says that it leads; a quorum confirms it several times a second.
/// So long after the last confirmation it still grants leases, and who takes over waits as long.
pub const QUORUM_ACK_AGE_MAX: Duration = Duration::from_secs(1);

/// How often the coordinator looks who leads and who is there.
const TICK: Duration = Duration::from_millis(200);

/// A coordinator that was stopped for longer must ask the fleet whether it still is one, and whom it
/// hasn't heard says nothing.
const STALL_MAX: Duration = Duration::from_secs(1);

/// Rates change without anything being applied.
const PLAN_EVERY: Duration = Duration::from_secs(5);

/// Who votes is no matter of milliseconds, and what makes it change isn't all in the catalog.
const VOTERS_EVERY: Duration = Duration::from_millis(500);

/// Between two plans while entries are being applied all the time, at least; and so many times as long as
/// the last plan took.
const PLAN_PAUSE: Duration = Duration::from_millis(20);
const PLAN_PAUSE_FACTOR: u32 = 4;

/// After a command that was not taken.
const RETRY_WAIT: Duration = Duration::from_millis(500);

pub struct Coordinator {
    port: Arc<dyn CatalogPort>,
    clock: Uptime,
    term: Mutex<Option<Term>>,
    /// Kept while others lead, too: nothing is moved twice in a minute because the Raft leader changes.
    changes: Mutex<Changes>,
    /// Who is there has changed.
    changed: watch::Sender<()>,
}

/// What is known since this node began to lead.
struct Term {
    number: u64,
    began: Duration,
    presences: Presences,
    past: Past,
    /// As of the last tick.
    seen: BTreeMap<NodeId, Presence>,
    /// Until when it is trusted that this node leads.
    until: Duration,
    told: Told,
    /// Nodes whose partitions a command that may be under way gives to others.
    losing: BTreeSet<NodeId>,
}

impl Coordinator {
    pub fn new(port: Arc<dyn CatalogPort>, clock: Uptime) -> Self {
        let (term, changes, changed) = (Mutex::default(), Mutex::default(), watch::Sender::default());
        Self { port, clock, term, changes, changed }
    }

    /// Answers a node's report.
    pub fn heard(&self, from: NodeId, report: Report) -> Answer {
        let applied = self.port.applied();
        let now = self.clock.now();
        let mut term = self.lock();
        let Some(term) = term.as_mut().filter(|term| now < term.until) else {
            return Answer::NoLease(Reason::NotCoordinator);
        };
        let Some(node) = applied.catalog.nodes.get(&from) else {
            return Answer::NoLease(Reason::NotMember(from));
        };
        if node.starts != report.starts {
            return Answer::NoLease(Reason::OtherStart { reported: report.starts, last: node.starts });
        }
        let needed = term.past.needed(now);
        if report.applied < needed {
            return Answer::NoLease(Reason::Behind { applied: report.applied, needed });
        }
        let was_live = matches!(term.presences.of(now, from), Presence::Live { .. });
        term.presences.report(now, from, report.starts);
        if !was_live {
            self.changed.send_replace(());
        }
        term.told.hear(&applied.catalog, from, report.rates);
        if term.losing.contains(&from) {
            return Answer::NoLease(Reason::BeingTakenOver);
        }
        let takes = |id: &NodeId, node: &catalog::Node| {
            *id != from
                && node.duty == Duty::Mirrors
                && matches!(term.presences.of(now, *id), Presence::Live { .. })
        };
        let others = applied.catalog.nodes.iter().filter(|(id, node)| takes(id, node)).count();
        Answer::Lease { applied: applied.index, others: u32::try_from(others).unwrap_or(u32::MAX) }
    }

    /// Runs until it is dropped, or consensus stops.
    pub async fn run(&self) {
        tokio::select! {
            () = self.watch() => {}
            () = self.place() => {}
            () = self.change_voters() => {}
        }
    }

    /// Keeps [`Term`] true, whatever takes long elsewhere.
    async fn watch(&self) {
        let mut last = self.clock.now();
        loop {
            let status = self.port.status();
            let now = self.clock.now();
            self.changes().look(now, &self.port.applied());
            if now.saturating_sub(last) > STALL_MAX {
                *self.lock() = None;
            }
            let since_ack = status.millis_since_quorum_ack.map(Duration::from_millis);
            match since_ack.filter(|age| status.is_leader && *age <= QUORUM_ACK_AGE_MAX) {
                Some(age) if self.lock().as_ref().is_some_and(|term| term.number == status.term) => {
                    self.tick(now, now + QUORUM_ACK_AGE_MAX.saturating_sub(age));
                }
                Some(_) => {
                    *self.lock() = None;
                    self.begin(&status).await;
                }
                None => *self.lock() = None,
            }
            // Whatever `begin` waited for is no stall: it ends with this node confirmed.
            last = self.clock.now();
            tokio::time::sleep(TICK).await;
        }
    }

    /// Nothing is granted or planned before all that was acknowledged under others is applied here.
    async fn begin(&self, status: &Status) {
        let began = self.clock.now();
        let Ok(applied) = self.port.read().await else { return };
        let after = self.port.status();
        if !after.is_leader || after.term != status.term {
            return;
        }
        let (now, node) = (self.clock.now(), status.node_id);
        let starts = applied.catalog.nodes.get(&node).map_or(0, |node| node.starts);
        tracing::info!(term = status.term, "this node coordinates the fleet");
        *self.lock() = Some(Term {
            number: status.term,
            began,
            presences: Presences::begin(now, node, starts),
            past: Past::default(),
            seen: BTreeMap::new(),
            // The read was confirmed by a quorum after it began.
            until: began + QUORUM_ACK_AGE_MAX,
            told: Told::default(),
            losing: BTreeSet::new(),
        });
        self.tick(now, began + QUORUM_ACK_AGE_MAX);
    }

    fn tick(&self, now: Duration, until: Duration) {
        let applied = self.port.applied();
        let nodes = &applied.catalog.nodes;
        let me = self.port.node();
        let mut term = self.lock();
        let Some(term) = term.as_mut() else { return };
        term.until = term.until.max(until);
        term.past.note(now, applied.index);
        if let Some(node) = nodes.get(&me) {
            term.presences.report(now, me, node.starts);
        }
        let seen = term.presences.of_all(now, nodes.keys().copied());
        if seen != term.seen {
            for (id, presence) in &seen {
                tell(nodes.get(id).map_or("", |node| &node.name), term.seen.get(id), presence);
            }
            term.seen = seen;
            self.changed.send_replace(());
        }
    }

    /// None while this node doesn't lead.
    fn situation(&self, applied: &Arc<Applied>) -> Option<Situation> {
        let now = self.clock.now();
        let mut term = self.lock();
        let term = term.as_mut().filter(|term| now < term.until)?;
        let nodes = term.presences.of_all(now, applied.catalog.nodes.keys().copied());
        // Half of the rates would make those busy who told theirs first.
        let all_told = now >= term.began + ALL_TOLD_AFTER;
        let rates = if all_told { term.told.rates(&applied.catalog) } else { BTreeMap::new() };
        let mut changes = self.changes();
        changes.look(now, applied);
        let (changed, handing_over) = (changes.recent().clone(), changes.handing_over());
        Some(Situation { now, nodes, rates, changed, handing_over })
    }

    async fn place(&self) {
        let (mut applied, mut changed) = (self.port.watch(), self.changed.subscribe());
        loop {
            changed.mark_unchanged();
            let current = applied.borrow_and_update().clone();
            let began = self.clock.now();
            let planned = self.situation(&current).map(|situation| {
                let plan = placement::plan(&current.catalog, &situation);
                let losers = losers(&current.catalog, &plan);
                (plan, losers)
            });
            // The next plan must not wait for the old catalog to be copied.
            drop(current);
            let took = self.clock.now().saturating_sub(began);
            let mut pause = PLAN_EVERY;
            if let Some((plan, losers)) = planned {
                pause = plan.look_again.map_or(pause, |at| at.min(pause));
                if !plan.is_empty() && self.propose(plan, losers).await.is_break() {
                    return;
                }
            }
            tokio::time::sleep(PLAN_PAUSE.max(took * PLAN_PAUSE_FACTOR)).await;
            tokio::select! {
                applied = applied.changed() => if applied.is_err() { return },
                _ = changed.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn change_voters(&self) {
        loop {
            let change = {
                let applied = self.port.applied();
                let (situation, members) = (self.situation(&applied), self.port.members());
                let known = situation.zip(members);
                known.and_then(|(situation, members)| voters::plan(&applied.catalog, &situation, &members))
            };
            if let Some(change) = change {
                tracing::info!("members: {change}");
                match self.port.change(change).await {
                    Ok(()) | Err(MemberError::InProgress) => {}
                    Err(MemberError::Stopped) => return,
                    Err(error) => tracing::warn!(%error, "voters: not changed; looking again"),
                }
            }
            tokio::time::sleep(VOTERS_EVERY).await;
        }
    }

    /// Breaks when consensus has stopped.
    async fn propose(&self, plan: Plan, losers: BTreeSet<NodeId>) -> std::ops::ControlFlow<()> {
        tracing::info!("placement: {plan}");
        for Planned { step, .. } in
            plan.hand_over.iter().filter(|p| p.reason == placement::Reason::NotReleased)
        {
            let (topic, partition, owner) = (&step.mirror.topic, step.partition, step.node);
            tracing::warn!(%topic, partition, %owner, "not released within {HAND_OVER_MAX:?}: the hand-over is called off");
        }
        let mut reasons: BTreeMap<&'static str, u64> = BTreeMap::new();
        for Planned { reason, .. } in plan.assign.iter().chain(&plan.hand_over) {
            *reasons.entry(reason.name()).or_default() += 1;
        }
        if let Some(term) = self.lock().as_mut() {
            term.losing = losers;
        }
        for action in plan.into_actions() {
            match self.port.submit(action).await {
                Ok(_) => {}
                Err(SubmitError::Refused(Refusal::Stale(_))) => reasons.clear(),
                Err(SubmitError::Stopped) => return std::ops::ControlFlow::Break(()),
                Err(error) => {
                    tracing::warn!(%error, "placement: the plan was not taken; making a new one");
                    reasons.clear();
                    tokio::time::sleep(RETRY_WAIT).await;
                    // What became of it is in the catalog, or nothing comes of it any more.
                    if self.port.read().await.is_err() {
                        *self.lock() = None;
                    }
                    break;
                }
            }
        }
        for (reason, count) in reasons {
            counter!("lockstep_reassignments_total", "reason" => reason).increment(count);
        }
        if let Some(term) = self.lock().as_mut() {
            term.losing.clear();
        }
        std::ops::ControlFlow::Continue(())
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Term>> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose partitions the plan gives away without their having stopped.
fn losers(catalog: &Catalog, plan: &Plan) -> BTreeSet<NodeId> {
    let owner = |planned: &Planned| {
        let mirror = catalog.mirror(&planned.step.mirror)?;
        Some(mirror.partitions.get(planned.step.partition as usize)?.assignment.as_ref()?.node)
    };
    plan.assign.iter().filter_map(owner).collect()
}

fn tell(name: &str, before: Option<&Presence>, now: &Presence) {
    match (before, now) {
        (_, Presence::Lost { .. }) if !matches!(before, Some(Presence::Lost { .. })) => {
            tracing::warn!(node = name, "a node is lost: it hasn't reported for too long");
        }
        (Some(Presence::Lost { .. }), Presence::Live { .. }) => {
            tracing::info!(node = name, "a lost node is back");
        }
        _ => {}
    }
}
