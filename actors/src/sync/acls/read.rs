//! Both ends' ACLs, each whole from one broker, and as whom brokers know Lockstep.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::{Catalog, Link};
use kafka::acls::{AclError, Described};
use kafka::client::Dial;
use kafka::{Client, Connection, Error, ErrorCode};

use super::plan::{self, Facts, Plan};
use super::settings::{self, AclSettings, Mode};
use super::{Mirrors, record};
use crate::observe::TaskError;
use crate::preflight;

/// All that one broker tells of a cluster that is the one it is to be.
pub struct Told {
    pub described: Described,
    pub connection: Connection,
    /// How many the cluster has for now.
    pub brokers: usize,
}

/// From the first of its brokers, or another: what one told is held against what the same tells the next time, since
/// another may know less.
pub async fn read(client: &Client, broker: usize) -> Result<Told, Error> {
    let brokers = client.metadata(Some(&[])).await?.brokers;
    let one = brokers.keys().nth(broker % brokers.len().max(1)).copied().ok_or(Error::UnknownBroker(-1))?;
    let connection = client.control(one).await?;
    let described = kafka::acls::describe(&connection).await?;
    Ok(Told { described, connection, brokers: brokers.len() })
}

/// What both ends have, whole, and as whom they know Lockstep.
pub struct Lists {
    pub source: Described,
    pub destination: Described,
    pub own: BTreeSet<String>,
}

pub struct Seen {
    pub lists: Lists,
    /// To the destination.
    pub connection: Connection,
    /// Both ends have brokers that can be asked, too.
    pub has_others: bool,
}

pub async fn look(
    source: &Client,
    destination: &Client,
    own: &BTreeSet<String>,
    broker: usize,
) -> Result<Seen, TaskError> {
    let (at_source, at_destination) = tokio::join!(read(source, broker), read(destination, broker));
    let at_source = at_source.map_err(|error| unread("source", &error))?;
    let at_destination = at_destination.map_err(|error| unread("destination", &error))?;
    let has_others = at_source.brokers > 1 && at_destination.brokers > 1;
    let (source, destination) = (at_source.described, at_destination.described);
    let lists = Lists { source, destination, own: own.clone() };
    Ok(Seen { lists, connection: at_destination.connection, has_others })
}

/// What is to be done by all nodes together.
pub fn planned(catalog: &Catalog, link: &Link, settings: &AclSettings, lists: &Lists) -> Plan {
    plan::plan(Facts {
        at_source: &lists.source.acls,
        at_destination: &lists.destination.acls,
        recorded: &record::recorded(catalog, &link.id),
        settings,
        own: &lists.own,
        came_from_here: &came_from_here(catalog, link),
        of_others: &others(catalog, link).flat_map(|other| record::written(catalog, &other.id)).collect(),
        mirrors: &Mirrors::of(catalog, link),
    })
}

/// What links of the other direction wrote at the source.
pub fn came_from_here(catalog: &Catalog, link: &Link) -> BTreeSet<kafka::acls::Acl> {
    let leads_back = |other: &&Arc<Link>| {
        other.source_cluster_id == link.destination_cluster_id
            && other.destination_cluster_id == link.source_cluster_id
    };
    let back = catalog.links.values().filter(leads_back);
    back.flat_map(|other| record::written(catalog, &other.id)).collect()
}

/// With the same destination.
fn others<'a>(catalog: &'a Catalog, link: &'a Link) -> impl Iterator<Item = &'a Arc<Link>> {
    let links = catalog.links.values().filter(|other| other.id != link.id);
    links.filter(|other| other.destination_cluster_id == link.destination_cluster_id)
}

/// Of a link: as its brokers know it by default, and as they are said to.
pub async fn own_principals(
    source: &Client,
    destination: &Client,
    settings: &AclSettings,
) -> Result<BTreeSet<String>, TaskError> {
    let mut own = settings.own.clone();
    for (side, client) in [("source", source), ("destination", destination)] {
        match client.principal().await {
            Ok(Some(principal)) => drop(own.insert(principal)),
            Ok(None) if !settings.own.is_empty() => {}
            Ok(None) => return Err(unnamed(side, "")),
            Err(error) => return Err(TaskError::internal(format!("the {side}: {error}"))),
        }
    }
    Ok(own)
}

/// Those of the destination's other links, and of links that read from it, which mode `mirror` spares, too.
pub async fn principals_of_others(
    dial: &Arc<dyn Dial>,
    catalog: &Catalog,
    link: &Link,
    mode: Mode,
) -> Result<BTreeSet<String>, TaskError> {
    let mut own = BTreeSet::new();
    if mode != Mode::Mirror {
        return Ok(own);
    }
    let cluster = &link.destination_cluster_id;
    let touches = |other: &&Arc<Link>| {
        other.id != link.id && [&other.destination_cluster_id, &other.source_cluster_id].contains(&cluster)
    };
    for other in catalog.links.values().filter(touches) {
        let of = format!("link '{}': ", other.name);
        let named = settings::own_principals_of(&other.configs);
        let configs = preflight::client_configs(catalog, other);
        let (source, destination) =
            configs.map_err(|error| TaskError::misconfiguration(format!("{of}{error}")))?;
        for (side, config) in [("source", source), ("destination", destination)] {
            match Client::new(config, dial.clone()).principal().await {
                Ok(Some(principal)) => drop(own.insert(principal)),
                Ok(None) if !named.is_empty() => {}
                Ok(None) => return Err(unnamed(side, &of)),
                Err(error) => return Err(TaskError::internal(format!("{of}the {side}: {error}"))),
            }
        }
        own.extend(named);
    }
    Ok(own)
}

fn unnamed(side: &str, of: &str) -> TaskError {
    TaskError::misconfiguration(format!(
        "{of}Lockstep shows the {side} a certificate, and what its brokers call it isn't known here: set {} to it (as \
         in 'User:CN=lockstep,O=Example'; several separated by ';'), so that ACLs of its own are never touched",
        settings::OWN_PRINCIPALS
    ))
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

pub fn unwritten(refused: &AclError) -> TaskError {
    let message = format!("the destination: {refused}");
    match refused.code {
        ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
            TaskError::authorization(format!("{message}; grant ALTER on the cluster"))
        }
        _ => TaskError::internal(message),
    }
}
