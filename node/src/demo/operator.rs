//! What an operator does and sees, through the API.

use crate::api::types::{ConfigEntry, CreateCluster, CreateLink, CreateMirror, MirrorRow};
use crate::cli::{Client, Failure, typed};

use super::TOPIC;
use super::clusters::Clusters;

const LINK: &str = "/kafka/v3/clusters/west/links/east-west";

/// The mirror as the API shows it; None when nobody answers.
pub type Mirror = Option<MirrorRow>;

pub struct Operator {
    url: String,
}

impl Operator {
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    /// Registers both clusters, links them, mirrors the topic.
    pub async fn link(&self, clusters: &Clusters) -> Result<(), Failure> {
        let (east, west) = (clusters.east.bootstrap.clone(), clusters.west.bootstrap.clone());
        self.call(move |client| {
            for (name, servers) in [("east", east), ("west", west)] {
                let configs = vec![entry("bootstrap.servers", &servers)];
                client.post(
                    "/lockstep/v1/clusters",
                    &CreateCluster { name: name.into(), configs, cluster_id: None },
                )?;
            }
            let link = CreateLink { source_cluster_id: None, configs: vec![entry("source.cluster", "east")] };
            client.post("/kafka/v3/clusters/west/links?link_name=east-west", &link)?;
            let mirror = CreateMirror {
                source_topic_name: TOPIC.into(),
                mirror_topic_name: None,
                replication_factor: None,
                configs: Vec::new(),
            };
            client.post(&format!("{LINK}/mirrors"), &mirror)
        })
        .await
        .map(drop)
    }

    pub async fn look(&self) -> Mirror {
        let found = self.call(|client| client.get(&format!("{LINK}/mirrors/{TOPIC}"))).await;
        found.and_then(|found| typed(&found)).ok()
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Client) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let client = Client::new(std::slice::from_ref(&self.url));
        let called = tokio::task::spawn_blocking(move || call(&client)).await;
        called.map_err(|error| Failure::new(error.to_string()))?
    }
}

fn entry(name: &str, value: &str) -> ConfigEntry {
    ConfigEntry { name: name.into(), value: value.into() }
}
