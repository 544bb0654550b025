//! What was withheld for a mirror is written when it stops, behind its fence and before it is STOPPED: as the source
//! has it at a promotion, as it was recorded at a failover. For a bounded time over all brokers; what is left then is
//! told, since nobody comes back to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use catalog::acls::AclState;
use catalog::stop::StopKind;
use catalog::{Catalog, Link, MirrorKey};
use kafka::acls::{Acl, AclError, Permission};
use kafka::connection::Gate;
use kafka::{Connection, Error, ErrorCode};
use tokio::time::Instant;

use super::mirrors::narrowed;
use super::plan::Recorded;
use super::read::{came_from_here, own_principals, read};
use super::settings::{self, AclSettings};
use super::stop_plan::Facts;
use super::{ACLS_A_REQUEST, Write, changed, record};
use crate::catalog_port::CatalogPort;
use crate::plane::LinkPlane;

/// A promotion's last look at the source, and what a stop writes: for so long each.
const LIMIT: Duration = Duration::from_secs(10);
/// One broker is waited for so long, when there may be others.
const BROKER_LIMIT: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(500);

/// So many ACLs are named that are to be written by hand.
const NAMED_MAX: usize = 20;

/// Codes with which an ACL is refused as it is; others pass with time. 31: authorization, 42: what was asked for, 44:
/// a policy of the brokers, 54: nothing authorizes.
const FOR_GOOD: [i16; 4] = [31, 42, 44, 54];

/// A stop's part.
pub struct AtStop<'a> {
    pub plane: &'a Arc<LinkPlane>,
    pub catalog: &'a Arc<dyn CatalogPort>,
    pub key: &'a MirrorKey,
    pub gate: &'a Gate,
    /// What [`last_look`] found.
    pub at_source: Option<&'a BTreeSet<Acl>>,
}

/// A link whose ACLs follow.
fn synced(catalog: &Catalog, key: &MirrorKey) -> Option<(Arc<Link>, AclSettings)> {
    let link = catalog.links.get(&key.link)?;
    Some((link.clone(), AclSettings::of(&link.configs)?))
}

/// All that the source has, for a promotion. None: its ACLs don't follow, or it didn't tell them, which is said then.
pub async fn last_look(
    plane: &LinkPlane,
    catalog: &dyn CatalogPort,
    key: &MirrorKey,
) -> (Option<BTreeSet<Acl>>, Option<String>) {
    if synced(&catalog.applied().catalog, key).is_none() {
        return (None, None);
    }
    let mut why = no_answer();
    let tries = async {
        for broker in 0.. {
            match tokio::time::timeout(BROKER_LIMIT, read(plane.source(), broker)).await {
                Ok(Ok(told)) => return Some(told.described.acls),
                Ok(Err(error)) if is_for_good(error.code()) => {
                    why = error.to_string();
                    return None;
                }
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => why = no_answer(),
            }
            tokio::time::sleep(AGAIN).await;
        }
        None
    };
    let found = tokio::time::timeout(LIMIT, tries).await.ok().flatten();
    let remark = found.is_none().then(|| {
        let age = age(&catalog.applied().catalog, key);
        format!(
            "the last sync of ACLs: the source didn't tell its own ({why}): what was recorded counts{age}"
        )
    });
    (found, remark)
}

/// How old what is recorded is.
fn age(catalog: &Catalog, key: &MirrorKey) -> String {
    let as_of_ms = catalog.acls.get(&key.link).map_or(0, |record| record.as_of_ms);
    let asked_at_ms =
        catalog.mirror(key).and_then(|mirror| mirror.stop.as_ref()).map(|stop| stop.asked_at_ms);
    match asked_at_ms {
        Some(asked_at_ms) if as_of_ms > 0 => {
            let seconds = (asked_at_ms - as_of_ms).max(0) / 1_000;
            format!(", as the source had them {seconds} s before this stop was asked for")
        }
        _ => ", and how old that is isn't known".to_owned(),
    }
}

fn is_for_good(code: Option<ErrorCode>) -> bool {
    code.is_some_and(|code| FOR_GOOD.contains(&code.0))
}

/// Some of them by name. None where there is none.
fn listed(acls: &BTreeSet<Acl>) -> Option<String> {
    let mut named: Vec<String> = acls.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if acls.len() > NAMED_MAX {
        named.push(format!("{} more", acls.len() - NAMED_MAX));
    }
    (!named.is_empty()).then(|| named.join(", "))
}

fn no_answer() -> String {
    format!("no answer within {} s", BROKER_LIMIT.as_secs())
}

/// Why a try isn't the last.
#[derive(Debug)]
enum Again {
    /// Another broker, or another time.
    Failed(String),
    /// Nothing was sent: it isn't this node's to stop for the moment.
    NotSent,
    Never(String),
}

impl AtStop<'_> {
    /// What couldn't be written, in words. Can be done again.
    ///
    /// # Errors
    /// What it waits for, where nothing was sent.
    pub async fn write(&self) -> Result<Vec<String>, String> {
        let catalog = self.catalog.applied();
        if synced(&catalog.catalog, self.key).is_none() {
            return Ok(self.left_withheld(&catalog.catalog).into_iter().collect());
        }
        let (begun, mut in_doubt) = (Instant::now(), false);
        for broker in 0.. {
            let again = match tokio::time::timeout(BROKER_LIMIT, self.once(broker, &mut in_doubt)).await {
                Ok(Ok(mut left)) => {
                    left.extend(self.failover_age());
                    return Ok(left);
                }
                Ok(Err(again)) => again,
                Err(_) => Again::Failed(no_answer()),
            };
            match again {
                Again::NotSent => return Err("its node to be the one that may write its ACLs".into()),
                Again::Failed(_) if begun.elapsed() < LIMIT => tokio::time::sleep(AGAIN).await,
                Again::Failed(why) | Again::Never(why) => {
                    return Ok(self.by_hand(&why, in_doubt).into_iter().collect());
                }
            }
        }
        Ok(Vec::new())
    }

    /// A failover goes by what is recorded, if anything is.
    /// The sync was turned off, and what it withheld is nobody's to write any more.
    fn left_withheld(&self, catalog: &Catalog) -> Option<String> {
        let recorded = record::recorded(catalog, &self.key.link);
        let withheld = recorded.iter().filter(|(_, state)| **state == AclState::Withheld);
        let ours: BTreeSet<Acl> = withheld.filter_map(|(acl, _)| narrowed(acl, &self.key.topic)).collect();
        let named = listed(&ours)?;
        Some(format!(
            "{} is off, so withheld ACLs weren't written; write by hand what clients need: {named}",
            settings::ENABLE
        ))
    }

    fn failover_age(&self) -> Option<String> {
        let applied = self.catalog.applied();
        let stop = applied.catalog.mirror(self.key)?.stop.as_ref()?;
        let record = applied.catalog.acls.get(&self.key.link)?;
        let counts = stop.kind == StopKind::FailOver && !record.acls.is_empty();
        counts.then(|| format!("ACLs were written as they were recorded{}", age(&applied.catalog, self.key)))
    }

    async fn once(&self, broker: usize, in_doubt: &mut bool) -> Result<Vec<String>, Again> {
        let applied = self.catalog.applied();
        let Some((link, settings)) = synced(&applied.catalog, self.key) else { return Ok(Vec::new()) };
        let (source, destination) = (self.plane.source(), self.plane.destination());
        let own = own_principals(source, destination, &settings).await;
        let own = own.map_err(|error| Again::Failed(error.message))?;
        let recorded = record::recorded(&applied.catalog, &self.key.link);
        let facts = Facts {
            topic: &self.key.topic,
            at_source: self.at_source,
            recorded: &recorded,
            settings: &settings,
            own: &own,
            came_from_here: &came_from_here(&applied.catalog, &link),
        };
        let wanted = facts.wanted();
        if wanted.is_empty() && self.at_source.is_none() {
            return Ok(Vec::new());
        }
        let told = read(destination, broker).await.map_err(|error| failed(&error))?;
        let mut there = told.described.acls;
        let mut writes =
            Writes { stop: self, connection: told.connection, recorded: recorded.clone(), in_doubt };
        // What a try before wrote without an answer.
        let known = wanted.iter().filter(|acl| there.contains(*acl));
        let known = known.filter(|acl| recorded.get(*acl) == Some(&AclState::Intended));
        writes.record(known.map(|acl| (acl.clone(), Some(AclState::Written))).collect()).await?;
        let mut denies = wanted.clone();
        denies.retain(|acl| acl.permission == Permission::Deny && !there.contains(acl));
        let mut left = Vec::new();
        there.extend(writes.create(denies, &mut left).await?);
        let (allows, held) = facts.allows(&there);
        writes.create(allows, &mut left).await?;
        *writes.in_doubt = false;
        left.extend(held.iter().map(|(acl, why)| format!("{acl} isn't written: {why}, which is by hand")));
        let revoked = facts.revoked(&there);
        left.extend(revoked.iter().map(|acl| format!("{acl} stays, which the source revoked just now")));
        let withdrawn = facts.withdrawn();
        left.extend(withdrawn.iter().map(|acl| format!("{acl} isn't written: the source has it no longer")));
        let more = left.len().saturating_sub(NAMED_MAX);
        left.truncate(NAMED_MAX);
        left.extend((more > 0).then(|| format!("and {more} more ACLs")));
        Ok(left)
    }

    /// Nobody comes back to it once the mirror is STOPPED.
    fn by_hand(&self, why: &str, in_doubt: bool) -> Option<String> {
        let applied = self.catalog.applied();
        let (_, settings) = synced(&applied.catalog, self.key)?;
        let facts = Facts {
            topic: &self.key.topic,
            at_source: self.at_source,
            recorded: &record::recorded(&applied.catalog, &self.key.link),
            settings: &settings,
            own: &settings.own,
            came_from_here: &BTreeSet::new(),
        };
        let wanted = facts.wanted();
        if wanted.is_empty() && !in_doubt {
            return None;
        }
        let doubt = if in_doubt { "; what was sent without an answer may still come" } else { "" };
        let named = listed(&wanted).unwrap_or_default();
        Some(format!(
            "withheld ACLs may not be written ({why}{doubt}); write by hand what is missing: {named}"
        ))
    }
}

struct Writes<'a> {
    stop: &'a AtStop<'a>,
    connection: Connection,
    recorded: Recorded,
    /// Something was sent, and what became of it isn't known.
    in_doubt: &'a mut bool,
}

impl Writes<'_> {
    /// Those that are there then. `left`: what was refused, in words.
    async fn create(&mut self, acls: BTreeSet<Acl>, left: &mut Vec<String>) -> Result<Vec<Acl>, Again> {
        let acls: Vec<Acl> = acls.into_iter().collect();
        let mut written = Vec::new();
        for some in acls.chunks(ACLS_A_REQUEST) {
            self.record(some.iter().map(|acl| (acl.clone(), Some(AclState::Intended))).collect()).await?;
            let before = std::mem::replace(self.in_doubt, true);
            let outcomes = kafka::acls::create(&self.connection, some, self.stop.gate.clone()).await;
            let outcomes = match outcomes {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    *self.in_doubt = before || !matches!(error, Error::NotSent { .. });
                    return Err(failed(&error));
                }
            };
            *self.in_doubt = before;
            let refused = changed(&outcomes, Write::Create);
            let passing = refused.iter().find(|(_, error)| !is_for_good(Some(error.code)));
            let done = outcomes.iter().filter_map(|(acl, outcome)| match outcome {
                Ok(()) => Some((acl.clone(), Some(AclState::Written))),
                Err(AclError { code, .. }) if is_for_good(Some(*code)) => {
                    // Told by the try that is the last: it is still wanted then.
                    Some((acl.clone(), Some(AclState::Withheld)))
                }
                Err(_) => None,
            });
            self.record(done.collect()).await?;
            if let Some((acl, error)) = passing {
                return Err(Again::Failed(format!("the destination: {acl}: {error}")));
            }
            left.extend(refused.iter().map(|(acl, error)| format!("{acl} isn't written: {error}")));
            written.extend(outcomes.into_iter().filter(|(_, outcome)| outcome.is_ok()).map(|(acl, _)| acl));
        }
        Ok(written)
    }

    async fn record(&mut self, states: Vec<(Acl, Option<AclState>)>) -> Result<(), Again> {
        let changes = record::changes(&self.recorded, states.iter().cloned());
        let recorded = record::record(&**self.stop.catalog, &self.stop.key.link, changes).await;
        recorded.map_err(|error| Again::Failed(error.to_string()))?;
        for (acl, state) in states {
            match state {
                Some(state) => drop(self.recorded.insert(acl, state)),
                None => drop(self.recorded.remove(&acl)),
            }
        }
        Ok(())
    }
}

fn failed(error: &Error) -> Again {
    match error {
        Error::NotSent { .. } => Again::NotSent,
        error if is_for_good(error.code()) => Again::Never(format!("the destination: {error}")),
        error => Again::Failed(format!("the destination: {error}")),
    }
}
