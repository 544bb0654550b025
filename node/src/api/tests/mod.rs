//! The API in process: the real router and a real Raft group of one, with clusters made up.

mod authorities;
mod configs;
mod description;
mod errors;
mod events;
mod link_deletion;
mod resources;
mod shown;

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::clock::WallClock;
use actors::preflight::{ClusterFacts, MirrorPlan, MirrorRequest, PreflightError};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use catalog::command::NodeDescription;
use catalog::{Action, Catalog, Link, ProducerIdentity, TopicId};
use consensus::{Consensus, Options};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::entropy::Entropy;
use super::preflight::{Answer, Lines, Preflight};
use super::{Api, router};
use crate::status::Fleet;

/// Clusters by bootstrap address: `east:9092` is Kafka cluster `id-east`, and so is `east-2:9092`;
/// `away:…` is away.
struct FakeClusters;

impl Preflight for FakeClusters {
    fn probe<'a>(&'a self, name: &'a str, configs: &'a BTreeMap<String, String>) -> Answer<'a, ClusterFacts> {
        let host = configs["bootstrap.servers"].split(':').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            if host == "away" {
                let (cluster, message) = (format!("cluster '{name}'"), "connection refused".into());
                return Err(PreflightError::Unreachable { cluster, message });
            }
            let cluster = host.trim_end_matches("-2");
            Ok(ClusterFacts { cluster_id: format!("id-{cluster}"), brokers: 1 })
        })
    }

    fn plan<'a>(
        &'a self,
        _: &'a Catalog,
        link: &'a Link,
        request: &'a MirrorRequest,
    ) -> Answer<'a, MirrorPlan> {
        let cluster = format!("the source of link '{}'", link.name);
        Box::pin(async move {
            match request.source_topic.as_str() {
                "missing" => {
                    Err(PreflightError::TopicNotFound { topic: request.source_topic.clone(), cluster })
                }
                "away" => Err(PreflightError::Unreachable { cluster, message: "connection refused".into() }),
                "full" => Err(PreflightError::TopicExists {
                    topic: request.mirror_topic.clone(),
                    cluster: "cluster 'west'".into(),
                    message: "it isn't empty".into(),
                }),
                _ => Ok(MirrorPlan {
                    source_topic: request.source_topic.clone(),
                    source_topic_id: TopicId([7; 16]),
                    mirror_topic: request.mirror_topic.clone(),
                    partitions: 2,
                    replication_factor: request.replication_factor,
                    topic_configs: BTreeMap::from([("compression.type".into(), "producer".into())]),
                    source_offsets: vec![(0, 10), (5, 25)],
                    adopts_existing: false,
                }),
            }
        })
    }

    fn delete_topic<'a>(
        &'a self,
        _: &'a Catalog,
        _: &'a Link,
        topic: &'a str,
        topic_id: TopicId,
    ) -> Answer<'a, ()> {
        assert_eq!(topic_id, DESTINATION_TOPIC_ID, "the topic that was the mirror's");
        Box::pin(async move { FakeClusters::delete(topic) })
    }

    fn acls<'a>(&'a self, _: &'a Catalog, link: &'a Link) -> Lines<'a> {
        let mode = link.configs.get("acl.sync.mode").cloned().unwrap_or_default();
        Box::pin(async move { vec![format!("what {mode} would do")] })
    }
}

impl FakeClusters {
    /// Mirrors of topics that begin with `kept` have topics that can't be deleted.
    fn delete(topic: &str) -> Result<(), PreflightError> {
        if topic.starts_with("kept") {
            let (topic, cluster) = (topic.to_owned(), "cluster 'west'".to_owned());
            return Err(PreflightError::TopicStays { topic, cluster, message: "grant DELETE on it".into() });
        }
        Ok(())
    }
}

struct Node {
    api: Api,
    router: Router,
    _directory: TempDir,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    /// Status, code and message of an answer that isn't a success.
    fn error(&self) -> (u16, u64, &str) {
        let keys: Vec<&String> = self.body.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["error_code", "message"], "an error has this body and no other");
        let code = self.body["error_code"].as_u64().expect("a number");
        (self.status, code, self.body["message"].as_str().expect("a string"))
    }
}

impl Node {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let consensus =
            Consensus::bootstrap(Options::new(directory.path(), "node-1")).await.expect("consensus");
        let description = NodeDescription {
            name: "node-1".into(),
            address: Some("a:1".into()),
            level: catalog::fleet::LEVEL,
            version: "1".into(),
        };
        let start = Action::RecordStart { node: consensus.node_id(), description };
        consensus.submit(start).await.expect("started");
        let fleet = Fleet {
            me: consensus.node_id(),
            peers: Arc::new(peers::Alone),
            observatory: Arc::default(),
            tls: Arc::default(),
        };
        let api = Api {
            consensus,
            preflight: Arc::new(FakeClusters),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            fleet,
            clock: WallClock::system(),
            entropy: Entropy::system(),
        };
        Self { router: router(api.clone()), api, _directory: directory }
    }

    /// With clusters east and west, link `east-west`, and mirror topic `orders`.
    async fn with_mirror() -> Self {
        let node = Self::start().await;
        for name in ["east", "west"] {
            assert_eq!(node.create_cluster(name).await.status, 201);
        }
        assert_eq!(node.create_link("east-west").await.status, 201);
        let made = node.post(MIRRORS, json!({"source_topic_name": "orders"})).await;
        assert_eq!(made.status, 201, "{made:?}");
        node
    }

    /// As the data plane does when it has made the destination topic.
    async fn mirror_is_ready(&self, topic: &str) {
        let catalog = self.catalog();
        let link = catalog.link_on("west", "east-west").expect("link");
        let ready = Action::MirrorReady {
            mirror: link.key(&topic.into()),
            destination_topic_id: DESTINATION_TOPIC_ID,
            producer: ProducerIdentity { producer_id: 1, producer_epoch: 0 },
        };
        self.api.consensus.submit(ready).await.expect("ready");
    }

    async fn create_cluster(&self, name: &str) -> Reply {
        let configs = json!([{"name": "bootstrap.servers", "value": format!("{name}:9092")}]);
        self.post(CLUSTERS, json!({"name": name, "configs": configs})).await
    }

    async fn create_link(&self, name: &str) -> Reply {
        let configs = json!([{"name": "source.cluster", "value": "east"}]);
        self.post(&format!("{LINKS}?link_name={name}"), json!({"configs": configs})).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty())).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.send(Request::delete(path).body(Body::empty())).await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.post_text(path, "application/json", body.to_string()).await
    }

    async fn put(&self, path: &str, body: Value) -> Reply {
        let request = Request::put(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string()))).await
    }

    async fn patch(&self, path: &str, body: Value) -> Reply {
        let request = Request::patch(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string()))).await
    }

    async fn post_text(&self, path: &str, content_type: &str, body: String) -> Reply {
        self.send(Request::post(path).header("content-type", content_type).body(Body::from(body))).await
    }

    async fn send(&self, request: Result<Request<Body>, axum::http::Error>) -> Reply {
        let answer = self.router.clone().oneshot(request.expect("request")).await.expect("answer");
        let (parts, body) = answer.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("body");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn catalog(&self) -> Catalog {
        self.api.catalog().catalog.clone()
    }
}

const DESTINATION_TOPIC_ID: TopicId = TopicId([9; 16]);
const CLUSTERS: &str = "/lockstep/v1/clusters";
const LINKS: &str = "/kafka/v3/clusters/west/links";
const MIRRORS: &str = "/kafka/v3/clusters/west/links/east-west/mirrors";
