//! What the operator sends to the API, written as the API's description has it: not with the product's types.

use std::collections::BTreeMap;
use std::fmt;

use catalog::{Link, NodeId};
use serde_json::{Value, json};

use crate::asked::{Asked, LinkName, MirrorName};
use crate::clusters::{BROKER_PORT, Registered};

#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: &'static str,
    pub target: String,
    pub body: Option<Value>,
    /// What the judge makes of it: several where each is answered by itself.
    pub asked: Vec<Asked>,
    /// It may be refused for what brokers say, or for what the node found out of a mirror.
    pub has_other_reasons: bool,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)?;
        self.body.iter().try_for_each(|body| write!(f, " {body}"))
    }
}

/// With which the fleet's members are spoken of.
const NODES: &str = "/lockstep/v1/nodes";
const CLUSTERS: &str = "/lockstep/v1/clusters";
/// Every mirror in one page.
pub const MIRRORS: &str = "/kafka/v3/clusters/-/links/-/mirrors?page_size=1000";

impl Request {
    fn new(method: &'static str, target: String) -> Self {
        Self { method, target, body: None, asked: Vec::new(), has_other_reasons: false }
    }

    pub fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target.into())
    }

    pub fn create_cluster(cluster: &Registered, request_timeout_ms: u64, asks_brokers: bool) -> Self {
        let bootstrap: Vec<String> =
            cluster.hosts.iter().map(|host| format!("{host}:{BROKER_PORT}")).collect();
        let configs = BTreeMap::from([
            ("bootstrap.servers".to_owned(), bootstrap.join(",")),
            ("request.timeout.ms".to_owned(), request_timeout_ms.to_string()),
        ]);
        let mut body = json!({"name": cluster.name, "configs": entries(&configs)});
        if !asks_brokers {
            body["cluster_id"] = cluster.id.into();
        }
        let (name, cluster_id) = (cluster.name.to_owned(), cluster.id.to_owned());
        Self {
            body: Some(body),
            asked: vec![Asked::CreateCluster { name, cluster_id, configs }],
            has_other_reasons: asks_brokers,
            ..Self::new("POST", format!("{CLUSTERS}?validate_cluster={asks_brokers}"))
        }
    }

    pub fn delete_cluster(cluster: &Registered) -> Self {
        Self {
            asked: vec![Asked::DeleteCluster { name: cluster.name.to_owned() }],
            ..Self::new("DELETE", format!("{CLUSTERS}/{}", cluster.name))
        }
    }

    pub fn create_link(
        from: &Registered,
        to: &Registered,
        configs: &BTreeMap<String, String>,
        asks_brokers: bool,
    ) -> Self {
        let (source, destination) = (from.name.to_owned(), to.name.to_owned());
        let link = LinkName { name: format!("{source}-{destination}"), destination };
        let mut all = configs.clone();
        all.insert("source.cluster".to_owned(), source.clone());
        let target = format!(
            "/kafka/v3/clusters/{}/links?link_name={}&validate_link={asks_brokers}",
            link.destination, link.name
        );
        Self {
            body: Some(json!({"source_cluster_id": from.id, "configs": entries(&all)})),
            asked: vec![Asked::CreateLink { link, source, configs: configs.clone() }],
            has_other_reasons: asks_brokers,
            ..Self::new("POST", target)
        }
    }

    /// Of one key, alone or among others.
    pub fn alter_link(link: &Link, key: &str, value: String, alone: bool) -> Self {
        let (path, asked) = (format!("{}/configs", path(link)), LinkName::of(link));
        let (target, body) = match alone {
            true => (format!("{path}/{key}"), json!({"value": value})),
            false => (format!("{path}:alter"), json!({"data": [{"name": key, "value": value}]})),
        };
        Self {
            body: Some(body),
            asked: vec![Asked::AlterLink { link: asked, key: key.to_owned(), value }],
            ..Self::new("PUT", target)
        }
    }

    pub fn create_mirror(link: &Link, mirror: &str, source_topic: &str, replicas: Option<i16>) -> Self {
        let mut body = json!({"source_topic_name": source_topic, "mirror_topic_name": mirror});
        if let Some(replicas) = replicas {
            body["replication_factor"] = replicas.into();
        }
        let (mirror, source_topic) = (named(link, mirror), source_topic.to_owned());
        Self {
            body: Some(body),
            asked: vec![Asked::CreateMirror { mirror, source_topic }],
            has_other_reasons: true,
            ..Self::new("POST", format!("{}/mirrors", path(link)))
        }
    }

    pub fn pause(link: &Link, mirror: &str) -> Self {
        Self::act(link, &[mirror], "pause", Asked::PauseMirror)
    }

    pub fn resume(link: &Link, mirror: &str) -> Self {
        Self::act(link, &[mirror], "resume", Asked::ResumeMirror)
    }

    pub fn promote(link: &Link, mirrors: &[&str]) -> Self {
        Self::act(link, mirrors, "promote", Asked::PromoteMirror)
    }

    pub fn cancel_promotion(link: &Link, mirrors: &[&str]) -> Self {
        Self::act(link, mirrors, "promote?cancel=true", Asked::CancelPromotion)
    }

    pub fn fail_over(link: &Link, mirrors: &[&str]) -> Self {
        Self::act(link, mirrors, "failover", Asked::FailOverMirror)
    }

    fn act(link: &Link, mirrors: &[&str], what: &str, asked: fn(MirrorName) -> Asked) -> Self {
        Self {
            body: Some(json!({"mirror_topic_names": mirrors})),
            asked: mirrors.iter().map(|mirror| asked(named(link, mirror))).collect(),
            ..Self::new("POST", format!("{}/mirrors:{what}", path(link)))
        }
    }

    /// With its topic at the destination, as `--delete-topic` has it, or without.
    pub fn delete_mirror(link: &Link, mirror: &str, with_topic: bool) -> Self {
        let target = format!("{}/mirrors/{mirror}?delete_topic={with_topic}", path(link));
        Self {
            asked: vec![Asked::DeleteMirror(named(link, mirror))],
            has_other_reasons: with_topic,
            ..Self::new("DELETE", target)
        }
    }

    pub fn drain(node: NodeId) -> Self {
        Self::new("POST", format!("{NODES}/{node}:drain"))
    }

    pub fn undrain(node: NodeId) -> Self {
        Self::new("POST", format!("{NODES}/{node}:undrain"))
    }

    pub fn remove(node: NodeId, lost: bool) -> Self {
        Self::new("DELETE", format!("{NODES}/{node}?lost={lost}"))
    }
}

pub fn path(link: &Link) -> String {
    format!("/kafka/v3/clusters/{}/links/{}", link.destination, link.name)
}

fn named(link: &Link, topic: &str) -> MirrorName {
    MirrorName { link: LinkName::of(link), topic: topic.to_owned() }
}

fn entries(configs: &BTreeMap<String, String>) -> Vec<Value> {
    configs.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}
