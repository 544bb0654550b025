//! ACLs follow the source (SPEC section 5, task `AclSync`): what the filters mean is at the destination as the
//! source has it, but for what would let others write to a mirror topic: that waits for the mirror's stop.
//!
//! An ACL that names a mirror is synced by the owner of that mirror's partition 0, as it would stop it; all
//! others by one node of the link. Nothing is written without its lease, nor about a mirror that has stopped.
//! What is written is in the catalog before, so that `owned` knows it whoever goes on. A list that couldn't be
//! read, or that lacks something for the first time, deletes nothing.
//!
//! - [`plan`]: what is to be done, as a value. [`mirrors`]: what ACLs have to do with mirror topics, and who
//!   syncs which. [`filters`]: which ACLs. [`settings`]: the keys. [`at_stop`]: what was withheld.
//!   [`preview`]: what it would do.

pub mod at_stop;
pub mod filters;
#[cfg(test)]
pub(crate) mod fixture;
pub mod mirrors;
pub mod plan;
pub mod preview;
pub mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::acls::{ACL_CHANGES_MAX, AclBinding, AclChange, AclRecord};
use catalog::{Action, Catalog, Link, LinkId, NodeId, Outcome};
use consensus::SubmitError;
use kafka::acls::{Acl, AclError, Described, Operation, Outcomes, PatternType, Permission, ResourceType};
use kafka::connection::Gate;
use kafka::{Client, Connection, Error, ErrorCode};
use tokio::time::Instant;

use self::mirrors::Mirrors;
use self::plan::{Facts, Plan, Recorded};
use self::settings::{AclSettings, WriteOnMirrors};
use crate::catalog_port::CatalogPort;
use crate::fleet::lease::Pass;
use crate::observe::{Observatory, TaskError, TaskView};
use crate::plane::LinkPlane;

/// What a user calls it.
pub const TASK: &str = "AclSync";

/// How often it is looked whether a round is due: configs may have changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// ACLs in one request: the controller writes each as a record, all of a request at once.
const ACLS_A_REQUEST: usize = 200;

/// Errors and remarks kept of a round, at most.
const TOLD_MAX: usize = 200;

/// What a round found, by ACL; by the empty name what has to do with none.
#[derive(Debug, Default)]
struct Found {
    errors: BTreeMap<Arc<str>, TaskError>,
    remarks: BTreeMap<Arc<str>, String>,
}

#[derive(Clone, Copy)]
enum Write {
    Create,
    Delete,
}

pub struct AclSync {
    pub link: LinkId,
    pub node: NodeId,
    pub plane: Arc<LinkPlane>,
    pub catalog: Arc<dyn CatalogPort>,
    pub observatory: Arc<Observatory>,
}

impl AclSync {
    /// Until the task is aborted.
    pub async fn run(self) {
        let mut absent = BTreeSet::new();
        let mut last: Option<Instant> = None;
        let mut told = BTreeMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let link = self.catalog.watch().borrow().catalog.links.get(&self.link).cloned();
            let link = link.filter(|link| !link.is_paused());
            let Some(settings) = link.and_then(|link| AclSettings::of(&link.configs)) else {
                (absent, last) = (BTreeSet::new(), None);
                self.observatory.clear_task(&self.link, TASK);
                continue;
            };
            if last.is_some_and(|at| at.elapsed() < settings.every) {
                continue;
            }
            last = Some(Instant::now());
            let mut found = Found::default();
            if let Err(error) = self.round(&settings, &mut absent, &mut found).await {
                // What is absent is to be absent in two lists in a row.
                absent = BTreeSet::new();
                found.errors.insert("".into(), error);
            }
            let Found { errors, remarks } = found;
            for (acl, error) in errors.iter().filter(|(acl, error)| told.get(*acl) != Some(*error)) {
                tracing::warn!(%acl, "{TASK}: {}", error.message);
            }
            told = errors.clone();
            self.observatory.set_task(&self.link, TaskView { name: TASK, errors, remarks });
        }
    }

    /// `absent`: what the round before would have deleted or forgotten.
    async fn round(
        &self,
        settings: &AclSettings,
        absent: &mut BTreeSet<Acl>,
        found: &mut Found,
    ) -> Result<(), TaskError> {
        if settings.filters.is_empty() {
            let message = format!("no ACL is meant: set {} to {}", settings::FILTERS, filters::FORM);
            return Err(TaskError::misconfiguration(message));
        }
        if !self.has_part() {
            absent.clear();
            return Ok(());
        }
        // What was read under one lease isn't written under another: a node that hung is far behind.
        let pass = self.plane.lease().pass();
        let Seen { lists, connection } =
            look(self.plane.source(), self.plane.destination(), settings).await?;
        for (side, described) in [("source", &lists.source), ("destination", &lists.destination)] {
            if described.unknown > 0 {
                let message =
                    format!("{} ACLs of kinds that this version doesn't know are left", described.unknown);
                found.remarks.insert(side.into(), message);
            }
        }
        let Some((mut plan, revision)) = self.plan(settings, &lists) else { return Ok(()) };
        *absent = plan.confirm(absent);
        let remarks = plan.remarks.iter().take(TOLD_MAX);
        found.remarks.extend(remarks.map(|(acl, remark)| (acl.to_string().into(), remark.clone())));
        let changes = plan.record.iter().map(|(acl, state)| (binding(acl), *state)).collect();
        let recorded = record(&*self.catalog, &self.link, changes, revision).await;
        recorded.map_err(|error| TaskError::internal(format!("nothing is written: {error}")))?;
        for (write, acls) in [(Write::Create, plan.creations()), (Write::Delete, plan.deletions())] {
            for some in acls.chunks(ACLS_A_REQUEST) {
                let _turn = self.plane.sync_writes().read().await;
                let gate = self.gate(pass, write, some, settings);
                self.write(&connection, write, some, gate, found).await?;
            }
        }
        Ok(())
    }

    fn has_part(&self) -> bool {
        let applied = self.catalog.applied();
        let link = applied.catalog.links.get(&self.link);
        link.is_some_and(|link| mirrors::has_part(&applied.catalog, link, self.node))
    }

    /// This node's part, and the revision of the record that it was decided on. None: the link is gone.
    fn plan(&self, settings: &AclSettings, lists: &Lists) -> Option<(Plan, u64)> {
        let applied = self.catalog.applied();
        let catalog = &applied.catalog;
        let link = catalog.links.get(&self.link)?;
        let (mut plan, revision) = planned(catalog, link, settings, lists);
        plan.retain(|acl| mirrors::syncs(catalog, link, acl) == Some(self.node));
        Some((plan, revision))
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
            lease() && is_still_wanted && !link.is_paused() && acls.iter().all(may)
        })
    }

    async fn write(
        &self,
        connection: &Connection,
        write: Write,
        acls: &[Acl],
        gate: Gate,
        found: &mut Found,
    ) -> Result<(), TaskError> {
        let done = match write {
            Write::Create => kafka::acls::create(connection, acls, gate).await,
            Write::Delete => kafka::acls::delete(connection, acls, gate).await,
        };
        let outcomes = match done {
            Ok(outcomes) => outcomes,
            // They aren't ours to write any more, or not for the moment.
            Err(Error::NotSent { .. }) => return Ok(()),
            Err(error) => return Err(TaskError::internal(format!("the destination: {error}"))),
        };
        for (acl, refused) in changed(outcomes, write) {
            if refused.code == ErrorCode::CLUSTER_AUTHORIZATION_FAILED {
                return Err(unwritten(&refused));
            }
            if found.errors.len() < TOLD_MAX {
                found.errors.insert(acl.to_string().into(), unwritten(&refused));
            }
        }
        Ok(())
    }
}

/// Tells what was written, and returns what was refused.
fn changed(outcomes: Outcomes, write: Write) -> Vec<(Acl, AclError)> {
    let what = match write {
        Write::Create => "created",
        Write::Delete => "deleted",
    };
    let mut refused = Vec::new();
    for (acl, outcome) in outcomes {
        match outcome {
            Ok(()) => {
                tracing::info!("{TASK}: {what} {acl}");
                metrics::counter!("lockstep_acl_changes_total").increment(1);
            }
            Err(error) => refused.push((acl, error)),
        }
    }
    refused
}

/// All ACLs of a cluster that is the one it is to be, and a connection to the broker that told them. Always the
/// first of its brokers: another may know less than the one before.
async fn read(client: &Client) -> Result<(Described, Connection), Error> {
    let brokers = client.metadata(Some(&[])).await?.brokers;
    let first = brokers.keys().next().copied().ok_or(Error::UnknownBroker(-1))?;
    let connection = client.control(first).await?;
    Ok((kafka::acls::describe(&connection).await?, connection))
}

/// What both ends have, whole, and as whom they know Lockstep.
struct Lists {
    source: Described,
    destination: Described,
    own: BTreeSet<String>,
}

struct Seen {
    lists: Lists,
    /// To the destination.
    connection: Connection,
}

async fn look(source: &Client, destination: &Client, settings: &AclSettings) -> Result<Seen, TaskError> {
    let own = own_principals(source, destination, settings).await?;
    let (at_source, at_destination) = tokio::join!(read(source), read(destination));
    let (source, _) = at_source.map_err(|error| unread("source", &error))?;
    let (destination, connection) = at_destination.map_err(|error| unread("destination", &error))?;
    Ok(Seen { lists: Lists { source, destination, own }, connection })
}

/// What is to be done by all nodes together, and the revision of the record that it was decided on.
fn planned(catalog: &Catalog, link: &Link, settings: &AclSettings, lists: &Lists) -> (Plan, u64) {
    let (recorded, revision) = recorded(catalog.acls.get(&link.id).map(|record| &**record));
    let leads_back = |other: &&Arc<Link>| {
        other.source_cluster_id == link.destination_cluster_id
            && other.destination_cluster_id == link.source_cluster_id
    };
    let records = catalog.links.values().filter(leads_back).filter_map(|other| catalog.acls.get(&other.id));
    let came_from_here = records.flat_map(|record| record.written()).filter_map(known).collect();
    let plan = plan::plan(Facts {
        at_source: &lists.source.acls,
        at_destination: &lists.destination.acls,
        recorded: &recorded,
        settings,
        own: &lists.own,
        came_from_here: &came_from_here,
        mirrors: &Mirrors::of(catalog, link),
    });
    (plan, revision)
}

async fn own_principals(
    source: &Client,
    destination: &Client,
    settings: &AclSettings,
) -> Result<BTreeSet<String>, TaskError> {
    let mut own = settings.own.clone();
    for (side, client) in [("source", source), ("destination", destination)] {
        match client.principal().await {
            Ok(Some(principal)) => drop(own.insert(principal)),
            Ok(None) if !settings.own.is_empty() => {}
            Ok(None) => {
                return Err(TaskError::misconfiguration(format!(
                    "Lockstep shows the {side} a certificate, and what its brokers call it isn't known here: set \
                     {} to it (as in 'User:CN=lockstep,O=Example'; several separated by ';'), so that ACLs of \
                     its own are never touched",
                    settings::OWN_PRINCIPALS
                )));
            }
            Err(error) => return Err(TaskError::internal(format!("the {side}: {error}"))),
        }
    }
    Ok(own)
}

fn unread(side: &str, error: &Error) -> TaskError {
    let message = format!("the {side}: {error}");
    match error.code() {
        Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED) => {
            TaskError::authorization(format!("{message}; grant DESCRIBE on the cluster"))
        }
        Some(ErrorCode::SECURITY_DISABLED) => TaskError::misconfiguration(format!(
            "{message}: its brokers have no authorizer (authorizer.class.name), so there are no ACLs"
        )),
        _ => TaskError::internal(message),
    }
}

fn unwritten(refused: &AclError) -> TaskError {
    let message = format!("the destination: {refused}");
    match refused.code {
        ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
            TaskError::authorization(format!("{message}; grant ALTER on the cluster"))
        }
        _ => TaskError::internal(message),
    }
}

/// Everything or, with the error, not all of it; in as many commands as it takes.
async fn record(
    catalog: &dyn CatalogPort,
    link: &LinkId,
    changes: Vec<AclChange>,
    mut revision: u64,
) -> Result<(), SubmitError> {
    for some in changes.chunks(ACL_CHANGES_MAX) {
        let (link, changes) = (link.clone(), some.to_vec());
        let action = Action::RecordAcls { link, expected_revision: revision, changes };
        revision += u64::from(catalog.submit(action).await? == Outcome::Done);
    }
    Ok(())
}

fn recorded(record: Option<&AclRecord>) -> (Recorded, u64) {
    let Some(record) = record else { return (Recorded::new(), 0) };
    let known = record.acls.iter().filter_map(|(acl, state)| Some((known(acl)?, *state)));
    (known.collect(), record.revision)
}

fn binding(acl: &Acl) -> AclBinding {
    AclBinding {
        resource_type: acl.resource_type.code(),
        pattern_type: acl.pattern_type.code(),
        resource_name: acl.resource_name.clone(),
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: acl.operation.code(),
        permission: acl.permission.code(),
    }
}

/// None: a newer version wrote it, and this one doesn't know its kind.
fn known(acl: &AclBinding) -> Option<Acl> {
    Some(Acl {
        resource_type: ResourceType::of_code(acl.resource_type)?,
        pattern_type: PatternType::of_code(acl.pattern_type)?,
        resource_name: acl.resource_name.clone(),
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: Operation::of_code(acl.operation)?,
        permission: Permission::of_code(acl.permission)?,
    })
}
