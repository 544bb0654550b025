//! What the API asks of Kafka clusters, mostly before it asks the catalog to change: a seam, so that
//! the API is tested without brokers.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actors::preflight::{self, ClusterFacts, MirrorPlan, MirrorRequest, PreflightError};
use actors::sync::acls::preview::preview;
use catalog::{Catalog, Link, TopicId};
use kafka::client::Dial;

/// Shorter than what the CLI waits for an answer, so that the reason arrives.
const LIMIT: Duration = Duration::from_secs(20);

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, PreflightError>> + Send + 'a>>;

pub type Lines<'a> = Pin<Box<dyn Future<Output = Vec<String>> + Send + 'a>>;

pub trait Preflight: Send + Sync {
    /// Asks the cluster with these client keys who it is.
    fn probe<'a>(&'a self, name: &'a str, configs: &'a BTreeMap<String, String>) -> Answer<'a, ClusterFacts>;

    /// What creating this mirror topic would do.
    fn plan<'a>(
        &'a self,
        catalog: &'a Catalog,
        link: &'a Link,
        request: &'a MirrorRequest,
    ) -> Answer<'a, MirrorPlan>;

    /// Deletes the destination topic of a mirror that was forgotten.
    fn delete_topic<'a>(
        &'a self,
        catalog: &'a Catalog,
        link: &'a Link,
        topic: &'a str,
        topic_id: TopicId,
    ) -> Answer<'a, ()>;

    /// What the ACL sync would do with these configs of a link, a line each; also why that isn't known.
    fn acls<'a>(&'a self, catalog: &'a Catalog, link: &'a Link) -> Lines<'a>;
}

/// Asks the clusters themselves, over connections that this makes.
pub struct LivePreflight(pub Arc<dyn Dial>);

impl Preflight for LivePreflight {
    fn probe<'a>(&'a self, name: &'a str, configs: &'a BTreeMap<String, String>) -> Answer<'a, ClusterFacts> {
        let cluster = format!("cluster '{name}'");
        Box::pin(limited(cluster, preflight::probe_cluster(self.0.clone(), name, configs)))
    }

    fn plan<'a>(
        &'a self,
        catalog: &'a Catalog,
        link: &'a Link,
        request: &'a MirrorRequest,
    ) -> Answer<'a, MirrorPlan> {
        let clusters = format!("source or destination of link '{}'", link.name);
        Box::pin(limited(clusters, preflight::plan_mirror(self.0.clone(), catalog, link, request)))
    }

    fn delete_topic<'a>(
        &'a self,
        catalog: &'a Catalog,
        link: &'a Link,
        topic: &'a str,
        topic_id: TopicId,
    ) -> Answer<'a, ()> {
        let cluster = format!("cluster '{}'", link.destination);
        Box::pin(limited(cluster, preflight::delete_topic(self.0.clone(), catalog, link, topic, topic_id)))
    }

    fn acls<'a>(&'a self, catalog: &'a Catalog, link: &'a Link) -> Lines<'a> {
        Box::pin(async move {
            let told = tokio::time::timeout(LIMIT, preview(self.0.clone(), catalog, link)).await;
            let told = told.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())));
            told.unwrap_or_else(|why| vec![format!("what AclSync would do isn't known: {why}")])
        })
    }
}

async fn limited<T>(
    cluster: String,
    question: impl Future<Output = Result<T, PreflightError>>,
) -> Result<T, PreflightError> {
    tokio::time::timeout(LIMIT, question).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", LIMIT.as_secs());
        Err(PreflightError::Unreachable { cluster, message })
    })
}
