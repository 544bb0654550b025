//! What has happened, when, why and who asked: `/lockstep/v1/events`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use catalog::events::{
    AskedBy, Cause, Event, History, LinkChange, LinkName, NodeChange, Step, Transition, What,
};
use catalog::{Catalog, MirrorStatus};
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::ApiResult;
use super::extract::ApiQuery;
use super::paging;
use super::rows::resource;
use super::types::{EventRow, Page, TransitionErrorRow};
use super::{ALL, Api};

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Of the links on this cluster, by registered name or Kafka cluster id.
    cluster: Option<String>,
    /// Of links of this name.
    link: Option<String>,
    /// Of mirror topics of this name: what each remembers of itself as well, however long ago.
    topic: Option<String>,
    /// About this member, or decided by it.
    node: Option<String>,
    /// Rows in an answer, 1 to 1000; 200 by default.
    page_size: Option<usize>,
    /// As `metadata.next` has it.
    page_token: Option<String>,
}

/// What has happened to links, mirror topics and members, newest first.
#[utoipa::path(
    get,
    path = "/lockstep/v1/events",
    operation_id = "listEvents",
    tag = "fleet",
    params(EventsQuery),
    responses((status = 200, description = "the fleet's newest 1000; of one topic also its own newest 20", body = Page<EventRow>))
)]
pub async fn list(
    State(api): State<Api>,
    uri: Uri,
    ApiQuery(mut query): ApiQuery<EventsQuery>,
) -> ApiResult<Json<Page<EventRow>>> {
    let applied = api.catalog();
    // One that was deleted since is known by its name alone.
    if let Some(cluster) = query.cluster.as_deref().and_then(|cluster| applied.catalog.cluster(cluster)) {
        query.cluster = Some(cluster.name.to_string());
    }
    let rows = rows(&applied.catalog, &query);
    // The newest has the lowest key: newer ones that come meanwhile stand before the page that was read.
    let keyed = rows.into_iter().map(|(number, row)| (format!("{:020}", u64::MAX - number), row));
    let page = paging::select(keyed, query.page_size, query.page_token.as_deref())?;
    Ok(Json(page.into_page("LockstepEvent", &uri, |row| {
        resource("LockstepEvent", "/lockstep/v1/events".to_owned(), row)
    })))
}

/// By number: what a mirror topic remembers may be among the newest, too.
pub(super) fn rows(catalog: &Catalog, query: &EventsQuery) -> BTreeMap<u64, EventRow> {
    let newest = catalog.events.newest.iter().map(|event| row(event));
    let own = query.topic.as_deref().map(|topic| of_topic(catalog, topic)).unwrap_or_default();
    let all = newest.chain(own).filter(|row| query.means(row));
    all.map(|row| (row.number, row)).collect()
}

fn of_topic(catalog: &Catalog, topic: &str) -> Vec<EventRow> {
    let mirrors = catalog.links.values().filter_map(|link| Some((link, link.mirrors.get(topic)?)));
    let own = mirrors.flat_map(|(link, mirror)| {
        let name = LinkName { name: link.name.clone(), destination: link.destination.clone() };
        mirror.history.iter().map(move |transition| {
            let Transition { number, at_ms, asked_by, step } = transition.clone();
            let what = What::Mirror { link: name.clone(), topic: mirror.name.clone(), step };
            row(&Event { number, at_ms, asked_by, what })
        })
    });
    own.collect()
}

impl EventsQuery {
    fn means(&self, row: &EventRow) -> bool {
        let is = |wanted: &Option<String>, value: &Option<String>| {
            wanted.is_none() || wanted.as_deref() == Some(ALL) || wanted == value
        };
        let decided = row.asked_by == "NODE" && is(&self.node, &row.asked_at);
        is(&self.cluster, &row.cluster)
            && is(&self.link, &row.link)
            && is(&self.topic, &row.topic)
            && (is(&self.node, &row.node) || decided)
    }
}

fn row(event: &Event) -> EventRow {
    let Event { number, at_ms, asked_by, what } = event;
    let (asked_by, asked_at) = match asked_by {
        AskedBy::Operator { through } => ("OPERATOR", through.as_ref()),
        AskedBy::Node(node) => ("NODE", node.as_ref()),
        AskedBy::Coordinator => ("COORDINATOR", None),
        AskedBy::Link => ("LINK", None),
    };
    let row = EventRow {
        number: *number,
        time_ms: *at_ms,
        kind: kind(what).to_owned(),
        cluster: None,
        link: None,
        topic: None,
        node: None,
        from: None,
        to: None,
        cause: None,
        cause_message: None,
        asked_by: asked_by.to_owned(),
        asked_at: asked_at.map(ToString::to_string),
    };
    let of_link = |link: &LinkName| (Some(link.destination.to_string()), Some(link.name.to_string()));
    match what {
        What::Link { link, .. } => {
            let (cluster, link) = of_link(link);
            EventRow { cluster, link, ..row }
        }
        What::Mirror { link, topic, step: Step { from, to, cause } } => {
            let (cluster, link) = of_link(link);
            let name = |status: MirrorStatus| status.name().to_owned();
            EventRow {
                cluster,
                link,
                topic: Some(topic.to_string()),
                from: from.map(name),
                to: to.map(name),
                cause: Some(cause.name().to_owned()),
                cause_message: in_words(cause),
                ..row
            }
        }
        What::Node { node, change } => {
            EventRow { node: Some(node.to_string()), cause_message: of_node(change), ..row }
        }
    }
}

fn kind(what: &What) -> &'static str {
    match what {
        What::Link { change: LinkChange::Created, .. } => "LINK_CREATED",
        What::Link { change: LinkChange::Paused, .. } => "LINK_PAUSED",
        What::Link { change: LinkChange::Resumed, .. } => "LINK_RESUMED",
        What::Link { change: LinkChange::Deleted, .. } => "LINK_DELETED",
        What::Mirror { step: Step { from: None, .. }, .. } => "MIRROR_CREATED",
        What::Mirror { step: Step { to: None, .. }, .. } => "MIRROR_DELETED",
        What::Mirror { .. } => "MIRROR_CHANGED",
        What::Node { change, .. } => match change {
            NodeChange::Joined => "NODE_JOINED",
            NodeChange::Started { .. } => "NODE_STARTED",
            NodeChange::Drains => "NODE_DRAINS",
            NodeChange::Undrained => "NODE_UNDRAINED",
            NodeChange::Stops => "NODE_STOPS",
            NodeChange::Lost { .. } => "NODE_LOST",
            NodeChange::Removed { .. } => "NODE_REMOVED",
        },
    }
}

fn in_words(cause: &Cause) -> Option<String> {
    match cause {
        Cause::Failed { partition, offset, message, .. } => {
            let place = partition.map(|index| format!("partition {index} at offset {offset}: "));
            Some(format!("{}{message}", place.unwrap_or_default()))
        }
        Cause::Stopped { lost: Some(0), .. } => Some("it has all that the source had".into()),
        Cause::Stopped { lost: Some(lost), .. } => {
            Some(format!("{lost} offsets of the source are not in it"))
        }
        Cause::Stopped { lost: None, .. } => {
            Some("the source didn't answer: what it had beyond isn't known".into())
        }
        Cause::CaughtUp => Some("it is being fenced: there is no way back".into()),
        _ => None,
    }
}

fn of_node(change: &NodeChange) -> Option<String> {
    match change {
        NodeChange::Started { version } => Some(format!("version {version}")),
        NodeChange::Lost { partitions } => {
            Some(format!("it didn't answer; {partitions} of its mirror partitions got another owner"))
        }
        NodeChange::Removed { lost: true } => Some("as lost for good".into()),
        _ => None,
    }
}

/// A mirror topic's failures that are remembered, newest first.
pub fn failures(history: &History) -> Vec<TransitionErrorRow> {
    let failure = |transition: &Transition| match &transition.step.cause {
        cause @ Cause::Failed { .. } => Some(TransitionErrorRow {
            error_code: cause.name().to_owned(),
            error_message: in_words(cause).unwrap_or_default(),
            time_ms: transition.at_ms,
        }),
        _ => None,
    };
    history.iter().rev().filter_map(failure).collect()
}
