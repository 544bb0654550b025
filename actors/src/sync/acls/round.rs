//! Both ends' ACLs once: what there is, what is to be done of it, and that. It never waits for the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::acls::AclState;
use catalog::{Action, Refusal};
use consensus::SubmitError;
use kafka::acls::{Acl, Permission};
use kafka::connection::Gate;
use kafka::{Connection, Error, ErrorCode};
use tokio::time::Instant;

use super::mirrors::{self, Mirrors};
use super::plan::{Plan, Recorded};
use super::read::{Lists, Seen, look, own_principals, planned, principals_of_others, unwritten};
use super::settings::{self, AclSettings, WriteOnMirrors};
use super::{ACLS_A_REQUEST, AclSync, Write, changed, filters, limits, record};
use crate::fleet::lease::Pass;
use crate::observe::TaskError;
use crate::sync::found::Found;
use crate::sync::keeper;

/// What a broker refused is tried again after so long: it takes two commands each time.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// How old what is recorded may look: a command in between would tell nothing new.
const AGE_TOLD_EVERY_MS: i64 = 60_000;

/// What rounds before have seen.
#[derive(Default)]
pub struct Memory {
    /// What the round before would have deleted or forgotten.
    absent: BTreeSet<Acl>,
    refused: BTreeMap<Acl, (Instant, TaskError)>,
}

impl Memory {
    pub fn forget_absent(&mut self) {
        self.absent.clear();
    }
}

impl AclSync {
    pub(super) async fn round(
        &self,
        settings: &AclSettings,
        memory: &mut Memory,
        found: &mut Found,
    ) -> Result<(), TaskError> {
        if settings.filters.is_empty() {
            let message = format!("no ACL is meant: set {} to {}", settings::FILTERS, filters::FORM);
            return Err(TaskError::misconfiguration(message));
        }
        if !self.may_write()? {
            memory.forget_absent();
            return Ok(());
        }
        // What was read under one lease isn't written under another: a node that hung is far behind.
        let pass = self.plane.lease().pass();
        let as_of_ms = self.plane.now_ms();
        let (source, destination) = (self.plane.source(), self.plane.destination());
        let seen = look(source, destination, &self.own(settings).await?, 0).await?;
        for (side, described) in [("source", &seen.lists.source), ("destination", &seen.lists.destination)] {
            if described.unknown > 0 {
                let what = format!("{} ACLs of kinds that this version doesn't know", described.unknown);
                found.remark(format!("the {side} has {what}"));
            }
        }
        let Some((mut plan, recorded)) = self.plan(settings, &seen.lists) else { return Ok(()) };
        let absent = plan.absent();
        self.confirm(&mut plan, &seen, settings, memory, found).await;
        let too_many = plan.keep_too_many(settings.delete_max_percent);
        // What is kept though the source lacks it is older than this look.
        let is_whole = too_many.is_none() && plan.absent() == absent;
        if let Some(message) = too_many {
            found.tell(TaskError::misconfiguration(message));
        }
        plan.retain(|acl| self.is_ours(acl));
        let by_name = |acl: &Acl| Arc::from(acl.to_string());
        found.remarks.extend(plan.remarks.iter().map(|(acl, remark)| (by_name(acl), remark.clone())));
        let errors = plan.errors.iter().map(|(acl, error)| (acl, TaskError::misconfiguration(error.clone())));
        found.errors.extend(errors.map(|(acl, error)| (by_name(acl), error)));
        let connection = seen.connection;
        Writes { sync: self, settings, pass, connection, recorded, memory, found }.all(&plan).await?;
        if is_whole {
            self.tell_age(as_of_ms).await;
        }
        Ok(())
    }

    /// Whether this node has anything to sync.
    fn may_write(&self) -> Result<bool, TaskError> {
        let applied = self.catalog.applied();
        let Some(link) = applied.catalog.links.get(&self.link) else { return Ok(false) };
        let unnamed = Mirrors::of(&applied.catalog, link).stopped_unnamed;
        match unnamed {
            0 => Ok(mirrors::has_part(&applied.catalog, link, self.node)),
            // What is about them is the destination's.
            _ => Err(TaskError::misconfiguration(format!(
                "{unnamed} deleted mirrors that had stopped are too many to be remembered by name, so nothing is \
                 written or deleted: delete the links of this destination that have no mirror left, and create them anew"
            ))),
        }
    }

    async fn own(&self, settings: &AclSettings) -> Result<BTreeSet<String>, TaskError> {
        let (source, destination) = (self.plane.source(), self.plane.destination());
        let mut own = own_principals(source, destination, settings).await?;
        let applied = self.catalog.applied();
        if let Some(link) = applied.catalog.links.get(&self.link) {
            own.extend(principals_of_others(&self.dial, &applied.catalog, link, settings.mode).await?);
        }
        Ok(own)
    }

    /// What is to be done by all nodes together, and the record that it was decided on. None: the link is gone.
    fn plan(&self, settings: &AclSettings, lists: &Lists) -> Option<(Plan, Recorded)> {
        let applied = self.catalog.applied();
        let link = applied.catalog.links.get(&self.link)?;
        let recorded = record::recorded(&applied.catalog, &self.link);
        Some((planned(&applied.catalog, link, settings, lists), recorded))
    }

    /// What one broker's lists lack is deleted and forgotten when another's lack it, too; where a cluster has only one
    /// broker, when they lack it in the next round, too.
    async fn confirm(
        &self,
        plan: &mut Plan,
        seen: &Seen,
        settings: &AclSettings,
        memory: &mut Memory,
        found: &mut Found,
    ) {
        let absent = plan.absent();
        let before = std::mem::replace(&mut memory.absent, absent.clone());
        if absent.is_empty() {
            return;
        }
        let other = match seen.has_others {
            false => before,
            true => match look(self.plane.source(), self.plane.destination(), &seen.lists.own, 1).await {
                Ok(other) => {
                    let plan = self.plan(settings, &other.lists);
                    plan.map(|(plan, _)| plan.absent()).unwrap_or_default()
                }
                Err(error) => {
                    found.remark(format!(
                        "nothing is deleted: no second broker confirms it: {}",
                        error.message
                    ));
                    BTreeSet::new()
                }
            },
        };
        plan.confirm(&other);
    }

    fn is_ours(&self, acl: &Acl) -> bool {
        let applied = self.catalog.applied();
        let link = applied.catalog.links.get(&self.link);
        link.is_some_and(|link| mirrors::syncs(&applied.catalog, link, acl) == Some(self.node))
    }

    /// Everything was recorded that the source had then.
    async fn tell_age(&self, as_of_ms: i64) {
        let applied = self.catalog.applied();
        let Some(link) = applied.catalog.links.get(&self.link) else { return };
        let record = applied.catalog.acls.get(&self.link).filter(|record| !record.acls.is_empty());
        let is_old = record.is_some_and(|record| as_of_ms - record.as_of_ms >= AGE_TOLD_EVERY_MS);
        if is_old && keeper(&applied.catalog, link) == Some(self.node) {
            let (link, as_of_ms) = (self.link.clone(), Some(as_of_ms));
            let action = Action::RecordAcls { link, as_of_ms, changes: Vec::new() };
            if let Err(error) = self.catalog.submit(action).await {
                tracing::debug!(%error, "the age of what is recorded of ACLs isn't told");
            }
        }
    }

    /// Open while these are this node's to write, and may be.
    fn gate(&self, pass: Option<Pass>, write: Write, acls: &[Acl], settings: &AclSettings) -> Gate {
        let lease = self.plane.lease().gate(pass, Duration::ZERO);
        let (applied, link, node) = (self.catalog.watch(), self.link.clone(), self.node);
        let (acls, settings) = (acls.to_vec(), settings.clone());
        Arc::new(move || {
            let applied = applied.borrow();
            let Some(link) = applied.catalog.links.get(&link) else { return false };
            let mirrors = Mirrors::of(&applied.catalog, link);
            let may = |acl: &Acl| {
                let withheld =
                    settings.write_on_mirrors == WriteOnMirrors::AtStop && mirrors.written_by(acl).is_some();
                let is_safe = match write {
                    Write::Create => !withheld,
                    Write::Delete => !mirrors.has_failed_over,
                };
                is_safe
                    && mirrors.freezes(acl).is_none()
                    && mirrors::syncs(&applied.catalog, link, acl) == Some(node)
            };
            let is_still_wanted = AclSettings::of(&link.configs).as_ref() == Some(&settings);
            let is_known_whole = mirrors.stopped_unnamed == 0;
            lease() && is_still_wanted && is_known_whole && !link.is_paused() && acls.iter().all(may)
        })
    }
}

/// The acting part of a round.
struct Writes<'a> {
    sync: &'a AclSync,
    settings: &'a AclSettings,
    pass: Option<Pass>,
    connection: Connection,
    recorded: Recorded,
    memory: &'a mut Memory,
    found: &'a mut Found,
}

impl Writes<'_> {
    async fn all(&mut self, plan: &Plan) -> Result<(), TaskError> {
        let states = plan.record.iter().map(|(acl, state)| (acl.clone(), *state));
        let (forgotten, kept): (Vec<_>, Vec<_>) = states.partition(|(_, state)| state.is_none());
        self.record(forgotten).await?;
        let created = match self.record(kept).await {
            Ok(()) => self.create(plan).await,
            Err(error) => Err(error),
        };
        // At the limit deletions make room. What denies stays as long as what comes in its place may be missing.
        let is_whole = matches!(created, Ok(true));
        let deletions = plan.deletions().into_iter();
        let deletions = deletions.filter(|acl| is_whole || acl.permission == Permission::Allow);
        let deleted = self.delete(&deletions.collect::<Vec<_>>()).await;
        created.and(deleted)
    }

    /// Whether all of it was.
    async fn create(&mut self, plan: &Plan) -> Result<bool, TaskError> {
        self.memory.refused.retain(|acl, (at, _)| plan.create.contains(acl) && at.elapsed() < REFUSED_AGAIN);
        let refused = self.memory.refused.iter();
        self.found.errors.extend(refused.map(|(acl, (_, error))| (acl.to_string().into(), error.clone())));
        let denied = self.create_all(plan.of(Permission::Deny)).await?;
        let held = plan.held(&denied);
        let waiting = held.iter().map(|(acl, deny)| (acl.to_string().into(), limits::waits_for(deny)));
        self.found.remarks.extend(waiting);
        let mut allows = plan.of(Permission::Allow);
        allows.retain(|acl| !held.contains_key(acl));
        let allowed = self.create_all(allows).await?;
        Ok(denied.len() + allowed.len() == plan.create.len())
    }

    /// Those that are there then.
    async fn create_all(&mut self, mut acls: BTreeSet<Acl>) -> Result<BTreeSet<Acl>, TaskError> {
        acls.retain(|acl| !self.memory.refused.contains_key(acl));
        let (acls, mut written) = (acls.into_iter().collect::<Vec<_>>(), BTreeSet::new());
        for some in acls.chunks(ACLS_A_REQUEST) {
            written.extend(self.create_some(some).await?);
        }
        Ok(written)
    }

    async fn create_some(&mut self, acls: &[Acl]) -> Result<Vec<Acl>, TaskError> {
        let before: Vec<_> = acls.iter().map(|acl| (acl.clone(), self.recorded.get(acl).copied())).collect();
        self.record(acls.iter().map(|acl| (acl.clone(), Some(AclState::Intended))).collect()).await?;
        let done = {
            let _turn = self.sync.plane.sync_writes().read().await;
            let gate = self.sync.gate(self.pass, Write::Create, acls, self.settings);
            kafka::acls::create(&self.connection, acls, gate).await
        };
        let outcomes = match done {
            Ok(outcomes) => outcomes,
            // They aren't ours to write any more, or not for the moment.
            Err(Error::NotSent { .. }) => {
                self.record(before).await?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(TaskError::internal(format!("the destination: {error}"))),
        };
        let refused = changed(&outcomes, Write::Create);
        let state = |(acl, outcome): (&Acl, &Result<_, _>)| match outcome {
            Ok(()) => (acl.clone(), Some(AclState::Written)),
            Err(_) => (acl.clone(), record::refused(acl)),
        };
        self.record(outcomes.iter().map(state).collect()).await?;
        for (acl, refused) in refused {
            if refused.code == ErrorCode::CLUSTER_AUTHORIZATION_FAILED {
                return Err(unwritten(&refused));
            }
            self.found.errors.insert(acl.to_string().into(), unwritten(&refused));
            self.memory.refused.insert(acl, (Instant::now(), unwritten(&refused)));
        }
        let written = outcomes.into_iter().filter(|(_, outcome)| outcome.is_ok());
        Ok(written.map(|(acl, _)| acl).collect())
    }

    async fn delete(&mut self, acls: &[Acl]) -> Result<(), TaskError> {
        for some in acls.chunks(ACLS_A_REQUEST) {
            let _turn = self.sync.plane.sync_writes().read().await;
            let gate = self.sync.gate(self.pass, Write::Delete, some, self.settings);
            let outcomes = match kafka::acls::delete(&self.connection, some, gate).await {
                Ok(outcomes) => outcomes,
                Err(Error::NotSent { .. }) => return Ok(()),
                Err(error) => return Err(TaskError::internal(format!("the destination: {error}"))),
            };
            for (acl, refused) in changed(&outcomes, Write::Delete) {
                if refused.code == ErrorCode::CLUSTER_AUTHORIZATION_FAILED {
                    return Err(unwritten(&refused));
                }
                self.found.errors.insert(acl.to_string().into(), unwritten(&refused));
            }
        }
        Ok(())
    }

    async fn record(&mut self, states: Vec<(Acl, Option<AclState>)>) -> Result<(), TaskError> {
        let changes = record::changes(&self.recorded, states.iter().cloned());
        let recorded = record::record(&*self.sync.catalog, &self.sync.link, changes).await;
        recorded.map_err(|error| match error {
            SubmitError::Refused(Refusal::Stale(_)) => TaskError::internal(
                "a stop has recorded the same ACLs meanwhile: the next round goes on".into(),
            ),
            error => TaskError::internal(format!("not all is written: {error}")),
        })?;
        for (acl, state) in states {
            match state {
                Some(state) => drop(self.recorded.insert(acl, state)),
                None => drop(self.recorded.remove(&acl)),
            }
        }
        Ok(())
    }
}
